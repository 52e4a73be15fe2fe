"""The database behind the store: one code path for SQLite and PostgreSQL, one way to run a transaction."""

import asyncio
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, create_engine, select

from kahuna.domain.errors import Refusal
from kahuna.store.log import Head, Log
from kahuna.store.resource import Resource, message_of
from kahuna.store.tables import TABLES
from kahuna.store.transaction import Transaction
from kahuna.store.view import TAIL, Change, Commit, Entry, View
from kowa.runtime.crashpoint import reach

log = structlog.get_logger()
Result = TypeVar("Result")

# PostgreSQL: how many transactions at once. SQLite has one writer.
WRITERS = 4
RETRIES = 5
# Serialisation failure and deadlock: the transaction is run anew. A lock not had in time: the caller may try again.
_AGAIN = frozenset({"40001", "40P01"})
_LOCKED = "55P03"
# Plans at once: each holds locks that real changes wait for.
PLANS = 2


class Store:
    """The database and the view it feeds. `run` is the one way to change anything."""

    def __init__(self, url: str, *, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.view = View()
        self._clock = clock
        self._url = make_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._lock = self._lock_file()
        self.engine = _engine(url, self._sqlite)
        self._writers = ThreadPoolExecutor(1 if self._sqlite else WRITERS, thread_name_prefix="store")
        self._pending: set[asyncio.Task[Any]] = set()
        self._planning = asyncio.Semaphore(PLANS)

    def load(self) -> None:
        """Reads everything into the view. The schema must be there."""
        with Session(self.engine) as session:
            head = session.get(Head, 1)
            if head is None:
                head = Head(incarnation=str(uuid.uuid4()))
                session.add(head)
                session.commit()
                session.refresh(head)
            tail = session.exec(select(Log).order_by(col(Log.revision).desc()).limit(TAIL)).all()
            changes = (Change(entry.revision, entry.kind, entry.id, None) for entry in reversed(tail))
            self.view.load(head.incarnation, head.revision, _resources(session), changes)
        log.info("store.loaded", revision=self.view.revision, backend=self._url.get_backend_name())

    async def run(self, work: Callable[[Transaction], Result]) -> Result:
        """Runs one transaction and answers when the view has it.

        The caller may be cancelled; the transaction, once begun, is not. What `work` raises rolls it back.
        """
        task = asyncio.create_task(self._run(work))
        self._pending.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def plan(self, work: Callable[[Transaction], Result]) -> Result:
        """What a transaction would answer, and nothing of its effect. Few at once, and none waits long for a lock."""

        def dry(tx: Transaction) -> Result:
            tx.limit_locks()
            raise RolledBack(work(tx))

        async with self._planning:
            return await self.run(dry)

    async def close(self) -> None:
        """Waits for what is under way, then lets go of the database."""
        if self._pending:
            await asyncio.wait(self._pending)
        self.dispose()

    def dispose(self) -> None:
        """Lets go of the database; nothing may be under way."""
        self._writers.shutdown()
        self.engine.dispose()
        if self._lock is not None:
            os.close(self._lock)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._pending.discard(task)
        # Who waited has heard it; who went away does not want to.
        if not task.cancelled():
            task.exception()

    async def _run(self, work: Callable[[Transaction], Result]) -> Result:
        loop = asyncio.get_running_loop()
        result, commit = await loop.run_in_executor(self._writers, self._transact, work)
        if commit is not None:
            reach("kahuna.store.committed")
            self.view.hand_over(commit)
            await self.view.reached(commit.revision)
        return result

    def _transact(self, work: Callable[[Transaction], Result]) -> tuple[Result, Commit | None]:
        for attempt in range(RETRIES):
            with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
                tx = Transaction(session, self._clock())
                try:
                    result = work(tx)
                    commit = tx.finish()
                    reach("kahuna.store.written")
                    session.commit()
                except RolledBack as dry:
                    session.rollback()
                    return dry.result, None
                except DBAPIError as error:
                    session.rollback()
                    state = getattr(error.orig, "sqlstate", "")
                    if state == _LOCKED:
                        break
                    if state not in _AGAIN:
                        raise
                    log.info("store.again", attempt=attempt)
                else:
                    return result, commit
        raise Refusal("BUSY", "the database is busy with changes to the same things; try again")

    def _lock_file(self) -> int | None:
        """Holds a second Kahuna off an SQLite file. Raises SystemExit when one runs."""
        if not self._sqlite or not self._url.database or self._url.database == ":memory:":
            return None
        lock = os.open(Path(self._url.database).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"kahuna: another Kahuna uses {self._url.database}; stop it first") from None
        return lock


class RolledBack(Exception):
    """Ends a transaction without effect, and says what it would have been."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


def _engine(url: str, sqlite: bool) -> Engine:
    if not sqlite:
        return create_engine(url, pool_size=WRITERS, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 5})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # The driver's own BEGIN is deferred, which lets two writers in: take it from the driver's hands.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _resources(session: Session) -> Iterator[Change]:
    """All resources, read as plain tuples."""
    for kind, table in TABLES.items():
        columns = [getattr(table, name) for name in Resource.model_fields]
        for row in session.execute(select(*columns)):
            entry = Entry(row.revision, message_of(kind, row).SerializeToString(), row.sealed)
            yield Change(row.revision, kind, row.id, entry)
