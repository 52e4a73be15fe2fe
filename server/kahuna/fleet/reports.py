"""What agents see, stored: all sessions' reports together, every 20 ms at most."""

import asyncio
from collections.abc import Callable, Iterable
from functools import cache, partial

import structlog
from google.protobuf.message import Message

from kahuna.domain import slices
from kahuna.fleet.session import Session
from kahuna.store import operations
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, message_class, meta, timestamp
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
                await self._store.persist(lambda tx: _store(tx, pending.values(), acks.values()))  # noqa: B023 - awaited here
            except Exception as error:
                log.error("reports.failed", count=len(pending), exc_info=error)
                await self._one_by_one(pending.values(), acks.values())

    async def _one_by_one(
        self, pending: Iterable[tuple[Session, fleet_pb2.Report]], acks: Iterable[tuple[Session, str]]
    ) -> None:
        """So that one that can't be stored costs nobody else his."""
        await self._try("acks.failed", lambda tx: _store(tx, [], acks))
        for session, report in pending:
            alone = partial(_store, pending=[(session, report)], acks=[])
            await self._try("report.failed", alone, agent=session.agent, id=report.id)

    async def _try(self, what: str, work: Callable[[Transaction], None], **of: str) -> None:
        try:
            await self._store.persist(work)
        except Exception as error:
            log.error(what, exc_info=error, **of)


def _store(
    tx: Transaction,
    pending: Iterable[tuple[Session, fleet_pb2.Report]],
    acks: Iterable[tuple[Session, str]],
) -> None:
    pending, acks = list(pending), list(acks)
    sessions = {session for session, _ in (*pending, *acks)}
    current = {session for session in sessions if _is_current(tx, session)}
    gone: dict[tuple[str, str], list[str]] = {}
    for session, report in sorted(pending, key=lambda item: item[1].id):
        if session in current and (kind := _apply(tx, session, report)):
            gone.setdefault((kind, report.id), []).append(session.agent)
    for (kind, id_), agents in gone.items():
        operations.confirm_gone(tx, kind, id_, agents)
    for session, refusal in acks:
        if session in current:
            agent = tx.get("Agent", session.agent)
            assert isinstance(agent, agent_pb2.Agent)
            agent.status.held_revision, agent.status.refusal = session.held_revision, refusal[:1024]
            tx.report("Agent", agent)


def _is_current(tx: Transaction, session: Session) -> bool:
    agent = tx.find("Agent", session.agent)
    return isinstance(agent, agent_pb2.Agent) and agent.status.epoch == session.epoch


def _apply(tx: Transaction, session: Session, report: fleet_pb2.Report) -> str:
    """Takes what is seen of a resource. Its kind, if it is marked and gone from the agent's host."""
    noun = report.resource.WhichOneof("kind")
    if noun is None:
        return ""
    kind = _KINDS[noun]
    if not report.gone and not _is_reported(kind):
        return ""
    resource = tx.find(kind, report.id)
    if resource is None or not slices.concerns(tx, session.agent, kind, resource):
        return ""
    if report.gone:
        return kind if meta(resource).HasField("delete_time") else ""
    seen = getattr(report.resource, noun)
    _take(tx, resource, seen, report)
    reported = tx.report(kind, resource)
    if isinstance(reported, instance_pb2.Instance):
        reported = _respect_guest(tx, reported)
    progress = seen.status.progress if isinstance(seen, template_pb2.Template) else 0
    waiting = report.outcome == fleet_pb2.OUTCOME_WAITING
    operations.settle(tx, kind, reported, report.message[:1024], waiting=waiting, progress=progress)
    return ""


@cache
def _is_reported(kind: str) -> bool:
    """Whether anything that agents see of a kind is kept."""
    return CONTRACT.kinds[kind].converges or "status" in message_class(kind).DESCRIPTOR.fields_by_name


def _take(tx: Transaction, resource: Message, seen: Message, report: fleet_pb2.Report) -> None:
    """Puts what is seen into the resource: status, generation, conditions. A generation never goes back."""
    head = meta(resource)
    head.observed_generation = max(head.observed_generation, min(report.observed_generation, head.generation))
    head.state = meta_pb2.STATE_UNSPECIFIED
    # An agent that can't look says nothing of the status; what was known stays.
    if "status" in resource.DESCRIPTOR.fields_by_name and seen.HasField("status"):
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
