"""What agents see, stored: all sessions' reports together, every 20 ms at most."""

import asyncio
from collections.abc import Iterable

import structlog
from google.protobuf.message import Message

from kahuna.domain import slices
from kahuna.fleet.session import Session
from kahuna.store import operations
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, meta, timestamp
from kahuna.store.transaction import Transaction
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, instance_pb2, meta_pb2, template_pb2

log = structlog.get_logger()

EVERY = 0.02
_KINDS = {kind.noun: name for name, kind in CONTRACT.kinds.items()}


class Reports:
    """Collects reports, the latest of each resource and agent, and commits them together."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[tuple[str, str], tuple[Session, fleet_pb2.Report]] = {}
        self._held: dict[str, Session] = {}
        self._refusals: dict[str, tuple[Session, str]] = {}
        self._woken = asyncio.Event()

    def add(self, session: Session, reports: Iterable[fleet_pb2.Report]) -> None:
        """Takes what an agent sees; it is stored soon."""
        for report in reports:
            self._pending[session.agent, report.id] = (session, report)
        self._woken.set()

    def hold(self, session: Session, refusal: str) -> None:
        """Takes what an agent holds since its last ack, or why it refused."""
        self._refusals[session.agent] = (session, refusal)
        self._woken.set()

    async def run(self) -> None:
        """Stores what comes in, until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(EVERY)
            self._woken.clear()
            pending, self._pending = self._pending, {}
            acks, self._refusals = self._refusals, {}
            try:
                await self._store.run(lambda tx: _store(tx, pending.values(), acks.values()))  # noqa: B023 - awaited here
            except Exception as error:
                log.error("reports.failed", count=len(pending), exc_info=error)
                await self._one_by_one(pending.values())

    async def _one_by_one(self, pending: Iterable[tuple[Session, fleet_pb2.Report]]) -> None:
        for session, report in pending:
            try:
                await self._store.run(lambda tx: _store(tx, [(session, report)], []))  # noqa: B023 - awaited here
            except Exception as error:
                log.error("report.failed", agent=session.agent, id=report.id, exc_info=error)


def _store(
    tx: Transaction,
    pending: Iterable[tuple[Session, fleet_pb2.Report]],
    acks: Iterable[tuple[Session, str]],
) -> None:
    for session, report in sorted(pending, key=lambda item: item[1].id):
        if _is_current(tx, session):
            _apply(tx, session, report)
    for session, refusal in acks:
        if _is_current(tx, session):
            agent = tx.get("Agent", session.agent)
            assert isinstance(agent, agent_pb2.Agent)
            agent.status.held_revision, agent.status.refusal = session.held_revision, refusal[:1024]
            tx.report("Agent", agent)


def _is_current(tx: Transaction, session: Session) -> bool:
    agent = tx.find("Agent", session.agent)
    return isinstance(agent, agent_pb2.Agent) and agent.status.epoch == session.epoch


def _apply(tx: Transaction, session: Session, report: fleet_pb2.Report) -> None:
    noun = report.resource.WhichOneof("kind")
    if noun is None:
        return
    kind = _KINDS[noun]
    resource = tx.find(kind, report.id)
    if resource is None or session.agent not in slices.agents(tx, kind, resource):
        return
    if report.gone:
        if meta(resource).HasField("delete_time"):
            operations.confirm_gone(tx, kind, report.id, session.agent)
        return
    if not CONTRACT.kinds[kind].converges and "status" not in resource.DESCRIPTOR.fields_by_name:
        return
    seen = getattr(report.resource, noun)
    _take(tx, resource, seen, report)
    reported = tx.report(kind, resource)
    if isinstance(reported, instance_pb2.Instance):
        reported = _respect_guest(tx, reported)
    progress = seen.status.progress if isinstance(seen, template_pb2.Template) else 0
    waiting = report.outcome == fleet_pb2.OUTCOME_WAITING
    operations.settle(tx, kind, reported, report.message[:1024], waiting=waiting, progress=progress)


def _take(tx: Transaction, resource: Message, seen: Message, report: fleet_pb2.Report) -> None:
    """Puts what is seen into the resource: status, generation, conditions. A generation never goes back."""
    head = meta(resource)
    head.observed_generation = max(head.observed_generation, min(report.observed_generation, head.generation))
    head.state = meta_pb2.STATE_UNSPECIFIED
    if "status" in resource.DESCRIPTOR.fields_by_name:
        resource.status.CopyFrom(seen.status)  # type: ignore[attr-defined]
    found = list(meta(seen).conditions)
    if report.outcome == fleet_pb2.OUTCOME_FAILED:
        head.state = meta_pb2.STATE_ERROR
        found.append(meta_pb2.Condition(type="Failed", reason="FAILED", message=report.message[:1024]))
    if report.outcome == fleet_pb2.OUTCOME_WAITING:
        found.append(meta_pb2.Condition(type="Waiting", reason="WAITING", message=report.message[:1024]))
    earlier = {(condition.type, condition.reason): condition for condition in head.conditions}
    for condition in found:
        before = earlier.get((condition.type, condition.reason))
        since = before.transition_time if before is not None else timestamp(tx.now)
        condition.transition_time.CopyFrom(since)
    del head.conditions[:]
    head.conditions.extend(found)


def _respect_guest(tx: Transaction, machine: instance_pb2.Instance) -> instance_pb2.Instance:
    """A machine shut down from inside is wanted stopped from now on."""
    off = any(condition.type == "GuestPoweredOff" for condition in machine.meta.conditions)
    current = machine.meta.observed_generation >= machine.meta.generation
    if off and current and machine.power != instance_pb2.POWER_STOPPED:
        machine.power = instance_pb2.POWER_STOPPED
        stopped = tx.put("Instance", machine)
        assert isinstance(stopped, instance_pb2.Instance)
        return stopped
    return machine
