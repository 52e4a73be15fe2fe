"""All sessions, and the dispatch of commits to those that they concern."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

import structlog
from google.protobuf.message import Message

from kahuna.domain.errors import Refusal
from kahuna.fleet.session import Session
from kahuna.kinds import command, tracking
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kahuna.store.view import Transition
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, operation_pb2

log = structlog.get_logger()

SUPERSEDED = "superseded by a newer session of the same agent"
STALE_AFTER_S = 20.0  # without a message of the agent
MAX_VERSION_CHARS = 64  # of an agent's version; the rest is cut off
REVOKED = "its token has been revoked"
_CONNECTED = frozenset({agent_pb2.STREAM_ONLINE, agent_pb2.STREAM_STALE})


class Fleet:
    """The sessions of this process, at most one for each agent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: dict[str, Session] = {}
        self._changed_streams: set[str] = set()  # of agents that have connected or gone
        store.view.follow(self._follow)

    @contextlib.asynccontextmanager
    async def session(self, agent: str, token: str, version: str) -> AsyncIterator[Session]:
        """Opens a session with the next epoch, and ends an older one of the agent.

        Afterwards the agent is OFFLINE unless it has a newer session, even if the caller was cancelled while it opened.
        """
        opening = asyncio.create_task(self._open(agent, token, version))
        try:
            yield await asyncio.shield(opening)
        finally:
            await asyncio.shield(self._close(opening))

    async def end_command(self, session: Session, result: fleet_pb2.CommandResult) -> None:
        """Ends a command with its agent's result. An id without an operation is ignored, without a transaction."""
        if result.id in self.store.view.entries("Operation"):
            await self.store.run(lambda tx: command.end(tx, session.agent, result))

    async def start(self) -> None:
        """Marks all agents OFFLINE: right after a start none is connected."""

        def work(tx: Transaction) -> None:
            for id_ in tuple(self.store.view.entries("Agent")):
                _set_stream(tx, id_, agent_pb2.STREAM_OFFLINE)

        await self.store.run(work)

    async def watch_streams(self) -> None:
        """Marks agents STALE that send nothing for STALE_AFTER_S, and ONLINE again when they do, until cancelled.

        When agents have connected or gone, it also updates the messages of waiting operations.
        """
        while True:
            before = time.monotonic()
            await asyncio.sleep(STALE_AFTER_S / 8)
            now = time.monotonic()
            if now - before > STALE_AFTER_S / 2:
                # This process itself was suspended: messages that came meanwhile have not been read yet.
                continue
            for update in (partial(self._update_stale, now), self._update_waiting):
                try:
                    await update()
                except Exception as error:  # Error boundary: the next round may succeed
                    log.error("streams.not_updated", exc_info=error)

    async def _update_stale(self, now: float) -> None:
        changed = [it for it in self.sessions.values() if it.stale != (now - it.last_message_at > STALE_AFTER_S)]
        for session in changed:
            session.stale = not session.stale
            log.info("session.stale" if session.stale else "session.recovered", agent=session.agent)

        def work(tx: Transaction) -> None:
            for session in sorted(changed, key=lambda session: session.agent):
                stream = agent_pb2.STREAM_STALE if session.stale else agent_pb2.STREAM_ONLINE
                _set_stream(tx, session.agent, stream, session.epoch)

        if changed:
            await self.store.persist(work)

    async def _update_waiting(self) -> None:
        changed, self._changed_streams = self._changed_streams, set()
        if changed:
            await self.store.persist(partial(tracking.explain_waiting, agents=changed))

    async def _open(self, agent: str, token: str, version: str) -> Session:
        def work(tx: Transaction) -> int:
            # The token may have been revoked since the call was accepted.
            if _is_revoked(tx.find("AgentToken", token)):
                raise Refusal("UNAUTHENTICATED", "the key has been revoked; use one that is valid")
            record = tx.lock(agent_pb2.Agent, agent)
            status = record.status
            status.epoch += 1
            status.stream, status.version = agent_pb2.STREAM_ONLINE, version[:MAX_VERSION_CHARS]
            status.seen_time.FromMicroseconds(tx.now)
            del status.dropped_reports[:]
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
        # It may also have been revoked since that commit.
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
            work = partial(_set_stream, agent=session.agent, stream=agent_pb2.STREAM_OFFLINE, epoch=session.epoch)
            await self.store.persist(work)
            log.info("session.closed", agent=session.agent, epoch=session.epoch)

    def _follow(self, _: int, transitions: list[Transition]) -> None:
        for kind, id_, before, after, *_links in transitions:
            if kind == "AgentToken" and _is_revoked(after):
                for session in self.sessions.values():
                    if session.token == id_:
                        session.end(REVOKED)
            if len({agent.status.stream for agent in (before, after) if isinstance(agent, agent_pb2.Agent)}) > 1:
                self._changed_streams.add(id_)
            if isinstance(after, operation_pb2.Operation) and before is None and after.command:
                for agent in reach_of_kinds().holders(self.store.view, after.target_kind, after.target):
                    if agent in self.sessions:
                        self.sessions[agent].notify_commands()
        if self.sessions:
            self._dispatch(transitions)

    def _dispatch(self, transitions: list[Transition]) -> None:
        """Tells each session which members of its slice a commit has changed, added or removed."""
        # Reports are left out: they do not change the generation.
        changed = [
            (kind, id_)
            for kind, id_, before, after, *_links in transitions
            if before and after and meta(before).generation != meta(after).generation
        ]
        added = [link for transition in transitions for link in transition.added]
        dropped = [link for transition in transitions for link in transition.dropped]
        to_send, to_remove = reach_of_kinds().affected(self.store.view, self.sessions, changed, added, dropped)
        for (kind, id_), agents in to_send.items():
            for agent in agents:
                self.sessions[agent].mark_changed(id_, kind)
        for (_, id_), agents in to_remove.items():
            for agent in agents:
                self.sessions[agent].mark_changed(id_, "")


def _is_revoked(token: Message | None) -> bool:
    return token is None or meta(token).HasField("delete_time")


def _set_stream(tx: Transaction, agent: str, stream: agent_pb2.Stream, epoch: int | None = None) -> None:
    """Sets the stream state of a connected agent; with an epoch, only while that is its newest session."""
    with contextlib.suppress(Refusal):  # the agent's row may have been removed
        record = tx.lock(agent_pb2.Agent, agent)
        if record.status.stream in _CONNECTED and epoch in (None, record.status.epoch):
            record.status.stream = stream
            record.status.seen_time.FromMicroseconds(tx.now)
            tx.report("Agent", record)
