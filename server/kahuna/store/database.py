"""The store: runs transactions on SQLite or PostgreSQL, and feeds the view."""

import asyncio
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, col, create_engine, select

from kahuna.domain.errors import Refusal
from kahuna.store.resource import TABLES, Resource
from kahuna.store.tables import Head, Log
from kahuna.store.transaction import StaleRead, Transaction
from kahuna.store.view import MAX_TAIL_CHANGES, Change, Commit, View, entry_of
from kowa.backoff import Backoff
from kowa.runtime.crashpoint import crash_point

log = structlog.get_logger()
Result = TypeVar("Result")

POSTGRESQL_WRITERS = 4  # transactions at once; SQLite has one writer
MAX_ATTEMPTS = 5  # of one transaction
FIRST_RETRY_S, LONGEST_RETRY_S = 0.002, 0.05  # pauses between them
# PostgreSQL's error codes after which a transaction is run again: serialisation failure, deadlock.
_RETRIED_ERRORS = frozenset({"40001", "40P01"})
_LOCK_TIMEOUT_ERROR = "55P03"  # the caller gets BUSY and may try again
MAX_PLANS = 2  # at once: each has locks that real changes wait for
PLAN_LOCK_TIMEOUT_S = 1
# Pauses between attempts to reach a database that does not answer.
FIRST_RECONNECT_S, LONGEST_RECONNECT_S = 0.1, 5.0
CONNECT_TIMEOUT_S = 5  # for PostgreSQL to accept a connection


class Store:
    """The database and the view it feeds. All changes go through `run`."""

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """`clock` returns microseconds since 1970, `new_id` a random UUID."""
        self.view = View()
        self._clock, self._new_id = clock, new_id
        self._url = make_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._lock = self._lock_file()
        self.engine = _engine(url, self._sqlite)
        self._writers = ThreadPoolExecutor(1 if self._sqlite else POSTGRESQL_WRITERS, thread_name_prefix="store")
        self._pending: set[asyncio.Task[Any]] = set()
        self._planning = asyncio.Semaphore(MAX_PLANS)
        self._closing = False

    def load(self) -> None:
        """Reads everything into the view. The schema must be there."""
        with Session(self.engine, expire_on_commit=False) as session:
            head = session.get(Head, 1) or Head(incarnation=self._new_id())
            session.add(head)
            session.commit()
            tail = session.exec(select(Log).order_by(col(Log.revision).desc()).limit(MAX_TAIL_CHANGES)).all()
            changes = (Change(entry.revision, entry.kind, entry.id, None) for entry in reversed(tail))
            resources = (resource for kind in TABLES for resource in read(session, kind))
            self.view.load(head.incarnation, head.revision, resources, changes)
        log.info("store.loaded", revision=self.view.revision, backend=self._url.get_backend_name())

    async def run(self, work: Callable[[Transaction], Result]) -> Result:
        """Runs one transaction. Returns the result of `work` once the view has the commit.

        A started transaction goes on if the caller is cancelled. An exception of `work` rolls it back.
        """
        return await asyncio.shield(self._start(self._run(work)))

    async def persist(self, work: Callable[[Transaction], Result]) -> Result:
        """Runs one transaction again until the database answers or the store is closed.

        For work that no client would repeat. It may run again after a commit whose answer was lost.
        """
        return await self._until_answered(lambda: self.run(work))

    async def plan(self, work: Callable[[Transaction], Result]) -> Result:
        """Returns the result of a transaction that is rolled back. Few run at once, and none waits long for a lock."""

        results: list[Result] = []

        def plan(tx: Transaction) -> None:
            if not self._sqlite:  # SQLite has one writer, which waits for no lock
                tx.session.execute(text(f"SET LOCAL lock_timeout = '{PLAN_LOCK_TIMEOUT_S}s'"))
            results.append(work(tx))
            raise _Planned

        async with self._planning:
            with contextlib.suppress(_Planned):
                await self.run(plan)
        return results[-1]

    async def close(self) -> None:
        """Waits for transactions under way, then closes the database."""
        self._closing = True
        await asyncio.shield(asyncio.gather(*self._pending, return_exceptions=True))
        self.dispose()

    def dispose(self) -> None:
        """Closes the database; no transaction may be under way."""
        self._writers.shutdown()
        self.engine.dispose()
        if self._lock is not None:
            os.close(self._lock)

    def _start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Starts a task that `close` waits for."""
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._pending.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: when the caller was cancelled, nobody else does, and asyncio would log it

    async def _run(self, work: Callable[[Transaction], Result]) -> Result:
        loop = asyncio.get_running_loop()
        try:
            result, commit = await loop.run_in_executor(self._writers, self._transact, work)
        except Refusal as refusal:
            if refusal.reason == "ANSWER_LOST":
                self._start(self._until_answered(self._catch_up))
            raise
        if commit is not None:
            crash_point("kahuna.store.committed")
            self.view.apply(commit)
            await self.view.wait_for(commit.revision)
        return result

    async def _until_answered(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        backoff = Backoff(FIRST_RECONNECT_S, LONGEST_RECONNECT_S)
        while True:
            try:
                return await attempt()
            except Refusal as refusal:
                if refusal.status != "UNAVAILABLE" or self._closing:
                    raise
            await asyncio.sleep(backoff.next_pause())

    async def _catch_up(self) -> None:
        """Applies commits whose answer was lost to the view, which would wait for their revisions for ever."""
        loop = asyncio.get_running_loop()
        for commit in await loop.run_in_executor(self._writers, self._commits_after, self.view.revision):
            self.view.apply(commit)

    def _commits_after(self, revision: int) -> list[Commit]:
        """Returns the commits after a revision, with the current content of the resources that they touched."""
        commits = []
        try:
            with Session(self.engine) as session:
                logged = session.exec(select(Log).where(Log.revision > revision).order_by(col(Log.revision))).all()
                for number, entries in groupby(logged, lambda entry: entry.revision):
                    changes = []
                    for kind, id_ in [(entry.kind, entry.id) for entry in entries]:
                        found = next(read(session, kind, col(TABLES[kind].id) == id_), None)
                        changes.append(Change(number, kind, id_, found.entry if found else None))
                    commits.append(Commit(number, tuple(changes)))
        except OperationalError as error:
            raise _unavailable(error) from error
        return commits

    def _transact(self, work: Callable[[Transaction], Result]) -> tuple[Result, Commit | None]:
        """Runs a transaction in this thread, again if it collides with others."""
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S)
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                log.info("store.retry", attempt=attempt)
                time.sleep(backoff.next_pause())
            committing = False
            try:
                # Leaving the session rolls back what is not committed.
                with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
                    tx = Transaction(session, self._clock(), self._new_id)
                    result = work(tx)
                    commit = tx.finish()
                    crash_point("kahuna.store.written")
                    committing = True
                    session.commit()
                    return result, commit
            except StaleRead:
                continue
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", "")
                if state == _LOCK_TIMEOUT_ERROR:
                    break
                if state not in _RETRIED_ERRORS:
                    if committing and not self._sqlite:
                        raise _answer_lost(error) from error
                    if isinstance(error, OperationalError):
                        raise _unavailable(error) from error
                    raise
        raise Refusal("BUSY", "the database is busy with changes to the same things; try again")

    def _lock_file(self) -> int | None:
        """Locks an SQLite file for this process. Raises SystemExit if another Kahuna has it."""
        if not self._sqlite or not self._url.database or self._url.database == ":memory:":
            return None
        lock = os.open(Path(self._url.database).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"kahuna: another Kahuna uses {self._url.database}; stop it first") from None
        return lock


class _Planned(Exception):
    """Raised to roll a transaction back once its result is known."""


def _answer_lost(error: DBAPIError) -> Refusal:
    log.warning("store.answer_lost", error=str(error.orig))
    return Refusal(
        "ANSWER_LOST",
        "the database went away while it stored this, and may have done so; look, or repeat it with its request_id",
    )


def _unavailable(error: DBAPIError) -> Refusal:
    log.warning("store.unavailable", error=str(error.orig))
    return Refusal("STORE_UNAVAILABLE", "the database can't be used for now, Kahuna's log says why; try again")


def _engine(url: str, sqlite: bool) -> Engine:
    if not sqlite:
        return create_engine(
            url,
            hide_parameters=True,
            pool_size=POSTGRESQL_WRITERS,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )
    engine = create_engine(url, hide_parameters=True, connect_args={"check_same_thread": False, "timeout": 5})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # The driver's own BEGIN is deferred, so that two writers could deadlock: `begin` below replaces it.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def read(session: Session, kind: str, *conditions: Any) -> Iterator[Change]:
    """Yields the resources of a kind, read as plain tuples."""
    columns = [getattr(TABLES[kind], name) for name in Resource.model_fields]
    for row in session.execute(select(*columns).where(*conditions)):
        yield Change(row.revision, kind, row.id, entry_of(kind, row))
