"""All sessions, and which of them a commit concerns."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial

import structlog
from google.protobuf.message import Message

from kahuna.domain.errors import Refusal
from kahuna.fleet.session import Session
from kahuna.kinds import command, tracking
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import meta, timestamp
from kahuna.store.transaction import Transaction
from kahuna.store.view import Move
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, operation_pb2

log = structlog.get_logger()

SUPERSEDED = "superseded by a newer session of the same agent"
# An agent that has sent nothing for so long is STALE.
STALE_AFTER_S = 20.0
# How many characters are kept of an agent's version.
MAX_VERSION_CHARS = 64
REVOKED = "its token has been revoked"
_CONNECTED = frozenset({agent_pb2.STREAM_ONLINE, agent_pb2.STREAM_STALE})


class Fleet:
    """The sessions of this process, at most one an agent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: dict[str, Session] = {}
        self._streams_changed = False
        store.view.follow(self._follow)

    @contextlib.asynccontextmanager
    async def session(self, agent: str, token: str, version: str) -> AsyncIterator[Session]:
        """A new session: its epoch is one more than the last, and an older session of the agent ends.

        The agent is OFFLINE afterwards unless a newer one is there, even if the caller is cancelled while it opens.
        """
        opening = asyncio.create_task(self._open(agent, token, version))
        try:
            yield await asyncio.shield(opening)
        finally:
            await asyncio.shield(self._close(opening))

    async def end_command(self, session: Session, result: fleet_pb2.CommandResult) -> None:
        """Ends a command with its agent's result. An id that is no operation costs no transaction."""
        if self.store.view.entry("Operation", result.id) is not None:
            await self.store.run(lambda tx: command.end(tx, session.agent, result))

    async def start(self) -> None:
        """After a start nobody is connected."""

        def work(tx: Transaction) -> None:
            for agent in list(self.store.view.all("Agent")):
                _set_offline(tx, meta(agent).id, None)

        await self.store.run(work)

    async def watch_streams(self) -> None:
        """Marks agents STALE that send nothing for STALE_AFTER_S, and ONLINE again when they do, until cancelled."""
        while True:
            begun = time.monotonic()
            await asyncio.sleep(STALE_AFTER_S / 8)
            now = time.monotonic()
            if now - begun > STALE_AFTER_S / 2:
                # This process itself was suspended: messages that added meanwhile have not been read yet.
                continue
            silent = {one for one in self.sessions.values() if now - one.last_message_at > STALE_AFTER_S}
            changed = [session for session in self.sessions.values() if session.stale != (session in silent)]
            for session in changed:
                session.stale = not session.stale
                log.info("session.stale" if session.stale else "session.recovered", agent=session.agent)
            if changed:
                changes = [(session.agent, session.epoch, session.stale) for session in changed]
                try:
                    await self.store.persist(partial(_set_stale, changes=changes))
                except Exception as error:  # what fails once must not end it for good
                    log.error("session.stale_not_stored", exc_info=error)
            await self._update_waiting_operations()

    async def _update_waiting_operations(self) -> None:
        """Updates what open operations wait for on hosts whose agents have come or gone."""
        if self._streams_changed:
            self._streams_changed = False
            try:
                await self.store.persist(tracking.explain_waiting)
            except Exception as error:  # what fails once must not end it for good
                log.error("operations.not_updated", exc_info=error)

    async def _open(self, agent: str, token: str, version: str) -> Session:
        def work(tx: Transaction) -> int:
            # It may have been revoked since the call was let in.
            if _is_revoked(tx.find("AgentToken", token)):
                raise Refusal("UNAUTHENTICATED", "the key has been revoked; use one that is valid")
            record = tx.get("Agent", agent)
            assert isinstance(record, agent_pb2.Agent)
            status = record.status
            status.epoch += 1
            status.stream, status.version = agent_pb2.STREAM_ONLINE, version[:MAX_VERSION_CHARS]
            status.seen_time.CopyFrom(timestamp(tx.now))
            tx.report("Agent", record)
            return status.epoch

        session = Session(self.store.view, agent, token, await self.store.run(work))
        older = self.sessions.get(agent)
        if older is not None and older.epoch > session.epoch:
            session.end(SUPERSEDED)
            return session
        if older is not None:
            older.end(SUPERSEDED)
        self.sessions[agent] = session
        # It may also have been revoked since the commit.
        if _is_revoked(self.store.view.find("AgentToken", token)):
            session.end(REVOKED)
        log.info("session.opened", agent=agent, epoch=session.epoch, version=version[:MAX_VERSION_CHARS])
        return session

    async def _close(self, opening: asyncio.Task[Session]) -> None:
        with contextlib.suppress(Refusal):
            session = await opening
            session.finished.set()
            if self.sessions.get(session.agent) is session:
                del self.sessions[session.agent]
            await self.store.persist(lambda tx: _set_offline(tx, session.agent, session.epoch))
            log.info("session.closed", agent=session.agent, epoch=session.epoch, outside_slice=session.outside_slice)

    def _follow(self, _: int, moves: list[Move]) -> None:
        for move in moves:
            if move.kind == "AgentToken" and _is_revoked(move.after):
                self._end_sessions_of(move.id)
            if isinstance(move.after, agent_pb2.Agent) and _has_stream_changed(move.before, move.after):
                self._streams_changed = True
            if isinstance(move.after, operation_pb2.Operation) and move.before is None and move.after.command:
                self._notify_of_command(move.after)
        if self.sessions:
            self._dispatch(moves)

    def _dispatch(self, moves: list[Move]) -> None:
        """Notes in each session which members of its slice a commit has changed, added or removed."""
        moved = [(move.kind, move.id) for move in moves if _has_new_generation(move)]
        added = [link for move in moves for link in move.added]
        dropped = [link for move in moves for link in move.dropped]
        to_send, to_remove = reach_of_kinds().affected(self.store.view, self.sessions, moved, added, dropped)
        for (kind, id_), agents in to_send.items():
            for agent in agents:
                self.sessions[agent].touch(kind, id_)
        for (_, id_), agents in to_remove.items():
            for agent in agents:
                self.sessions[agent].leave(id_)

    def _notify_of_command(self, operation: operation_pb2.Operation) -> None:
        for agent in reach_of_kinds().holders(self.store.view, operation.target_kind, operation.target):
            if agent in self.sessions:
                self.sessions[agent].touch_commands()

    def _end_sessions_of(self, token: str) -> None:
        for session in self.sessions.values():
            if session.token == token:
                session.end(REVOKED)


def _has_new_generation(move: Move) -> bool:
    """Whether the desired state has changed; a report leaves the generation as it was."""
    before, after = move.before, move.after
    return before is not None and after is not None and meta(before).generation != meta(after).generation


def _has_stream_changed(before: Message | None, after: agent_pb2.Agent) -> bool:
    return isinstance(before, agent_pb2.Agent) and before.status.stream != after.status.stream


def _is_revoked(token: Message | None) -> bool:
    return token is None or meta(token).HasField("delete_time")


def _set_offline(tx: Transaction, agent: str, epoch: int | None) -> None:
    record = _connected(tx, agent)
    if record is not None and epoch in (None, record.status.epoch):
        _set_stream(tx, record, agent_pb2.STREAM_OFFLINE)


def _set_stale(tx: Transaction, changes: Iterable[tuple[str, int, bool]]) -> None:
    for agent, epoch, stale in sorted(changes):
        record = _connected(tx, agent)
        if record is not None and epoch == record.status.epoch:
            _set_stream(tx, record, agent_pb2.STREAM_STALE if stale else agent_pb2.STREAM_ONLINE)


def _connected(tx: Transaction, agent: str) -> agent_pb2.Agent | None:
    """The record of an agent that has a session, locked."""
    with contextlib.suppress(Refusal):
        record = tx.get("Agent", agent)
        if isinstance(record, agent_pb2.Agent) and record.status.stream in _CONNECTED:
            return record
    return None


def _set_stream(tx: Transaction, record: agent_pb2.Agent, stream: agent_pb2.Stream) -> None:
    record.status.stream = stream
    record.status.seen_time.CopyFrom(timestamp(tx.now))
    tx.report("Agent", record)
