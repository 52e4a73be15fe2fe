"""All sessions, and which of them a commit concerns."""

from kahuna.domain import slices
from kahuna.fleet.session import Session
from kahuna.store.database import Store
from kahuna.store.resource import meta, timestamp
from kahuna.store.transaction import Transaction
from kahuna.store.view import Move
from kowa.v2 import adapter_pb2, agent_pb2, instance_pb2


class Fleet:
    """The sessions of this process, at most one an agent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: dict[str, Session] = {}
        store.view.follow(self._follow)

    async def open(self, agent: str, token: str, version: str) -> Session:
        """A new session: its epoch is one more than the last, and an older session of the agent ends."""

        def work(tx: Transaction) -> int:
            record = tx.get("Agent", agent)
            assert isinstance(record, agent_pb2.Agent)
            status = record.status
            status.epoch += 1
            status.stream, status.version = agent_pb2.STREAM_ONLINE, version[:64]
            status.seen_time.CopyFrom(timestamp(tx.now))
            tx.report("Agent", record)
            return status.epoch

        session = Session(self.store.view, agent, token, await self.store.run(work))
        older = self.sessions.get(agent)
        if older is not None and older.epoch > session.epoch:
            session.end("superseded by a newer session of the same agent")
            return session
        if older is not None:
            older.end("superseded by a newer session of the same agent")
        self.sessions[agent] = session
        return session

    async def close(self, session: Session) -> None:
        """Forgets a session; the agent is OFFLINE unless a newer one is there."""
        if self.sessions.get(session.agent) is session:
            del self.sessions[session.agent]
        await self.store.run(lambda tx: _set_offline(tx, session.agent, session.epoch))

    async def start(self) -> None:
        """After a start nobody is connected."""

        def work(tx: Transaction) -> None:
            for agent in list(self.store.view.all("Agent")):
                _set_offline(tx, meta(agent).id, None)

        await self.store.run(work)

    def _follow(self, _: int, moves: list[Move]) -> None:
        for move in moves:
            if move.kind == "AgentToken":
                self._check_token(move)
            elif move.kind in slices.KINDS:
                self._dispatch(move)

    def _dispatch(self, move: Move) -> None:
        view = self.store.view
        concerned: set[str] = set()
        for resource in (move.before, move.after):
            if resource is not None:
                concerned |= slices.agents(view, move.kind, resource)
        whole = _moves_others(move)
        for agent in concerned:
            session = self.sessions.get(agent)
            if session is None:
                continue
            if whole:
                session.touch_all()
            else:
                session.touch(move.kind, move.id)

    def _check_token(self, move: Move) -> None:
        if move.after is None or meta(move.after).HasField("delete_time"):
            for session in self.sessions.values():
                if session.token == move.id:
                    session.end("its token has been revoked")


def _moves_others(move: Move) -> bool:
    """Whether a change lets other resources join or leave a slice."""
    if move.kind in ("Kaktus", "Kiwi"):
        return getattr(move.before, "agent", "") != getattr(move.after, "agent", "")
    if move.kind == "Instance":
        before, after = move.before, move.after
        assert isinstance(before, instance_pb2.Instance | None)
        assert isinstance(after, instance_pb2.Instance | None)
        return before is None or after is None or before.kaktus != after.kaktus
    if move.kind == "Adapter":
        was, now = move.before, move.after
        assert isinstance(was, adapter_pb2.Adapter | None)
        assert isinstance(now, adapter_pb2.Adapter | None)
        return (was.instance if was else "") != (now.instance if now else "")
    return False


def _set_offline(tx: Transaction, agent: str, epoch: int | None) -> None:
    record = tx.find("Agent", agent)
    if not isinstance(record, agent_pb2.Agent) or record.status.stream != agent_pb2.STREAM_ONLINE:
        return
    if epoch is None or record.status.epoch == epoch:
        record.status.stream = agent_pb2.STREAM_OFFLINE
        record.status.seen_time.CopyFrom(timestamp(tx.now))
        tx.report("Agent", record)
