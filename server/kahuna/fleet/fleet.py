"""All sessions, and the dispatch of commits to those that they concern."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

import structlog

from kahuna.domain.errors import Refusal
from kahuna.fleet.ending import Ending
from kahuna.fleet.holders import Holders
from kahuna.fleet.session import DROPPED, Holder, Session
from kahuna.fleet.sign_ins import Departure, SignIn, SignIns, is_revoked, set_problem, set_stream
from kahuna.kinds import command, tracking
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kahuna.store.view import Transition
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, operation_pb2

log = structlog.get_logger()

STALE_AFTER_S = 20.0  # without a message of the agent
SHUTDOWN_TIMEOUT_S = 1.5  # for all sessions to end when Kahuna stops


class Fleet:
    """The sessions of this process, at most one for each agent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: dict[str, Session] = {}
        self._changed_streams: set[str] = set()  # of agents that have connected or gone
        self._sign_ins = SignIns(store)
        self._holders = Holders()
        self._shared: set[str] = set()  # agents that are shown with a shared token
        self._commanded: set[str] = set()  # agents without a session for which there are new commands
        self._stopping = False
        self._deserted = asyncio.Event()  # set when the last session has ended after `stop`
        store.view.follow(self._follow)

    @contextlib.asynccontextmanager
    async def session(self, agent: str, token: str, holder: Holder) -> AsyncIterator[Session]:
        """Opens a session with the next epoch, and ends an older one of the agent.

        Afterwards the agent is OFFLINE unless it has a newer session, even if the caller was cancelled while it opened.
        Raises Ending when the agent is to come back later.
        """
        if self._stopping:
            raise _shutting_down()
        self._sign_ins.admit(agent)
        opening = asyncio.create_task(self._open(agent, token, holder))
        try:
            yield await asyncio.shield(opening)
        finally:
            await asyncio.shield(self._close(opening))

    async def stop(self) -> None:
        """Ends all sessions, and refuses new ones. Returns when the agents have been told, or don't read it in time."""
        self._stopping = True
        for session in self.sessions.values():
            session.end(_shutting_down())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                if self.sessions:
                    await self._deserted.wait()
                await self._sign_ins.finish()

    async def end_command(self, session: Session, result: fleet_pb2.CommandResult) -> None:
        """Ends a command with its agent's result. One of no command is dropped, without a transaction."""
        operation = self.store.view.find("Operation", result.id)
        if isinstance(operation, operation_pb2.Operation) and operation.command:
            await self.store.run(lambda tx: command.end(tx, session.agent, result))
        else:
            DROPPED.labels("result_of_no_command").inc()

    async def start(self) -> None:
        """Marks all agents OFFLINE: right after a start none is connected."""

        def work(tx: Transaction) -> None:
            for id_ in tuple(self.store.view.entries("Agent")):
                set_stream(tx, id_, agent_pb2.STREAM_OFFLINE)

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
            for update in (partial(self._update_stale, now), self._update_waiting, self._clear_shared):
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
                set_stream(tx, session.agent, stream, session.epoch)

        if changed:
            await self.store.persist(work)

    async def _update_waiting(self) -> None:
        changed, self._changed_streams = self._changed_streams, set()
        if changed:
            await self.store.persist(partial(tracking.explain_waiting, agents=changed))

    async def _clear_shared(self) -> None:
        """Clears the condition of agents whose token was shared, when that was long ago."""
        over = {agent for agent in self._shared if not self._holders.problem(agent)}

        def work(tx: Transaction) -> None:
            for record in tx.lock_all(agent_pb2.Agent, over):
                set_problem(tx, record, "")
                tx.report("Agent", record)

        if over:
            await self.store.persist(work)
            self._shared -= over

    async def _open(self, agent: str, token: str, holder: Holder) -> Session:
        older = self.sessions.get(agent)
        shared = self._holders.supersede(agent, older.holder, holder) if older is not None else ""
        problem = self._holders.problem(agent)
        opened = await self._sign_ins.open(SignIn(agent, token, holder.version, problem))
        session = Session(self.store.view, agent, token, opened.epoch, holder)
        older = self.sessions.get(agent)
        # An older session was told of the commands that were added meanwhile, and can't send them any more.
        session.has_commands = opened.has_commands or agent in self._commanded or older is not None
        self._commanded.discard(agent)
        if older is not None and older.epoch > session.epoch:
            session.end(_superseded(shared))
            return session
        if older is not None:
            older.end(_superseded(shared))
        self.sessions[agent] = session
        if problem:
            self._shared.add(agent)
            log.warning("session.token_shared", agent=agent, reason=problem)
        # It may also have been revoked since that commit, or Kahuna stopped.
        if is_revoked(self.store.view.find("AgentToken", token)):
            session.end(_revoked())
        if self._stopping:
            session.end(_shutting_down())
        log.info("session.opened", agent=agent, epoch=session.epoch, version=holder.version, host=holder.host)
        return session

    async def _close(self, opening: asyncio.Task[Session]) -> None:
        with contextlib.suppress(Refusal):
            session = await opening
            session.finished.set()
            if self.sessions.get(session.agent) is session:
                del self.sessions[session.agent]
            if self._stopping and not self.sessions:
                self._deserted.set()
            await self._sign_ins.close(Departure(session.agent, session.epoch))
            log.info("session.closed", agent=session.agent, epoch=session.epoch)

    def _follow(self, _: int, transitions: list[Transition]) -> None:
        for kind, id_, before, after, *_links in transitions:
            if kind == "AgentToken" and is_revoked(after):
                for session in self.sessions.values():
                    if session.token == id_:
                        session.end(_revoked())
            if len({agent.status.stream for agent in (before, after) if isinstance(agent, agent_pb2.Agent)}) > 1:
                self._changed_streams.add(id_)
            if isinstance(after, operation_pb2.Operation) and before is None and after.command:
                for agent in reach_of_kinds().holders(self.store.view, after.target_kind, after.target):
                    if agent in self.sessions:
                        self.sessions[agent].notify_commands()
                    else:
                        self._commanded.add(agent)
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


def _shutting_down() -> Ending:
    return Ending(fleet_pb2.FAREWELL_SHUTTING_DOWN, "Kahuna stops; it is back soon, or another one is there")


def _revoked() -> Ending:
    return Ending(fleet_pb2.FAREWELL_UNAUTHENTICATED, "its token has been revoked; use one that is valid")


def _superseded(shared: str) -> Ending:
    """The ending of an older session; `shared` is the problem when two agents take turns."""
    if shared:
        return Ending(fleet_pb2.FAREWELL_TOKEN_SHARED, shared)
    return Ending(fleet_pb2.FAREWELL_SUPERSEDED, "superseded by a newer session of the same agent")
