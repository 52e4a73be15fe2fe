"""Stores what agents report: all sessions' reports in one transaction, at most every 20 ms."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import islice

import structlog
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from kahuna.domain.errors import Refusal
from kahuna.fleet.session import MAX_TEXT_CHARS, WIRE_OVERHEAD_BYTES, Session
from kahuna.kinds import deletion, tracking
from kahuna.kinds.kind import Kinds
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, Lock, message_class, meta, timestamp
from kahuna.store.transaction import Transaction
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, kaktus_pb2, meta_pb2

log = structlog.get_logger()

STORE_INTERVAL_S = 0.02
# The most reports and acks stored in one transaction: users' changes wait for no more than that.
MAX_TRANSACTION_SIZE = 250
# When more of an agent's reports wait to be stored, nothing more is read from its stream.
MAX_WAITING_BYTES = 4 << 20
# Limits of a reported resource; of a host's, of the list of unknown domains and files (strangers) and of each fact.
MAX_RESOURCE_BYTES, MAX_STRANGERS_BYTES, MAX_FACT_BYTES = 64 << 10, 48 << 10, 3500
_KINDS = {kind.message.name: name for name, kind in CONTRACT.kinds.items()}
Pending = tuple[Session, fleet_pb2.Report]


class Reports:
    """Collects reports, the latest of each resource and agent, and commits them together."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store, self._kinds = store, kinds
        # Stored in the order of arrival, so that no agent holds up another.
        self._pending: dict[tuple[str, str], Pending] = {}
        self._waiting: Counter[str] = Counter()
        self._acks: dict[str, tuple[Session, str]] = {}
        self._woken = asyncio.Event()
        self._stored = asyncio.Condition()

    async def add(self, session: Session, reports: Iterable[fleet_pb2.Report]) -> None:
        """Takes what an agent sees; it is stored soon. Returns when more of the agent's may come."""
        await session.slice_known.wait()
        for report in reports:
            if session.concerns(report.id):
                self._put(session, _shortened(session.agent, report))
        async with self._stored:
            await self._stored.wait_for(lambda: self._waiting[session.agent] <= MAX_WAITING_BYTES)

    def add_ack(self, session: Session, refusal: str) -> None:
        """Takes note of a batch that an agent has acked, or why it refused it."""
        self._acks[session.agent] = (session, refusal)
        self._woken.set()

    async def run(self) -> None:
        """Stores what comes in, until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(STORE_INTERVAL_S)
            pending, acks = await self._take()
            try:
                await self._store.persist(lambda tx: _store(tx, self._kinds, pending, acks))  # noqa: B023 - awaited here
            except Exception as error:
                log.error("reports.failed", count=len(pending), exc_info=error)
                await self._store_one_by_one(pending, acks)

    def _put(self, session: Session, report: fleet_pb2.Report) -> None:
        key = session.agent, report.id
        before = self._pending.get(key)
        self._waiting[session.agent] += report.ByteSize() - (before[1].ByteSize() if before else 0)
        self._pending[key] = (session, report)
        self._woken.set()

    async def _take(self) -> tuple[list[Pending], list[tuple[Session, str]]]:
        """The next reports and acks to store."""
        acks = [self._acks.pop(agent) for agent in list(islice(self._acks, MAX_TRANSACTION_SIZE))]
        pending = [self._pending.pop(key) for key in list(islice(self._pending, MAX_TRANSACTION_SIZE - len(acks)))]
        for session, report in pending:
            self._waiting[session.agent] -= report.ByteSize()
        self._waiting = +self._waiting
        if not self._pending and not self._acks:
            self._woken.clear()
        async with self._stored:
            self._stored.notify_all()
        return pending, acks

    async def _store_one_by_one(self, pending: Iterable[Pending], acks: Iterable[tuple[Session, str]]) -> None:
        """Stores each in its own transaction, so that one that can't be stored loses no other."""
        for session, refusal in acks:
            alone = partial(_store, kinds=self._kinds, pending=[], acks=[(session, refusal)])
            await self._try("ack.failed", alone, agent=session.agent)
        for session, report in pending:
            alone = partial(_store, kinds=self._kinds, pending=[(session, report)], acks=[])
            await self._try("report.failed", alone, agent=session.agent, id=report.id)

    async def _try(self, what: str, work: Callable[[Transaction], None], **of: str) -> None:
        try:
            await self._store.persist(work)
        except Exception as error:
            log.error(what, exc_info=error, **of)


def _shortened(agent: str, report: fleet_pb2.Report) -> fleet_pb2.Report:
    """A report with its message cut. One whose resource is too long is replaced by a failure that says so."""
    report.message = report.message[:MAX_TEXT_CHARS]
    if resources.noun_of(report.resource) == "kaktus":
        _limit_host(report.resource)
    size = report.resource.ByteSize()
    if size <= MAX_RESOURCE_BYTES:
        return report
    log.warning("report.too_long", agent=agent, id=report.id, size=size)
    failed = fleet_pb2.Report(
        id=report.id,
        observed_generation=report.observed_generation,
        gone=report.gone,
        outcome=fleet_pb2.OUTCOME_FAILED,
        message=f"its agent says {size} bytes of it, and at most {MAX_RESOURCE_BYTES} are taken; "
        "the agent's log may say why",
    )
    failed.resource.type_url = report.resource.type_url
    return failed


def _limit_host(packed: any_pb2.Any) -> None:
    """Cuts the list of strangers, which may be long after a restore, and adds how many were cut.

    Facts of a length that no host has are left out, so that its capacity is told all the same.
    """
    with contextlib.suppress(DecodeError):
        host = kaktus_pb2.Kaktus.FromString(packed.value)
        for name in ("cpu_model", "cpu_flags", "numa_nodes", "underlay_address"):
            if kaktus_pb2.KaktusStatus(**{name: getattr(host.status, name)}).ByteSize() > MAX_FACT_BYTES:
                host.status.ClearField(name)
        strangers, room = host.status.strangers, MAX_STRANGERS_BYTES
        for index, stranger in enumerate(strangers):
            room -= len(stranger.encode()) + WIRE_OVERHEAD_BYTES
            if room < 0:
                left = len(strangers) - index
                del strangers[index:]
                strangers.append(f"and {left} more")
                break
        packed.value = host.SerializeToString()


def _store(tx: Transaction, kinds: Kinds, pending: Iterable[Pending], acks: Iterable[tuple[Session, str]]) -> None:
    pending, acks = list(pending), list(acks)
    sessions = {session for session, _ in (*pending, *acks)}
    current = {session for session in sessions if _is_current(tx, session)}
    gone: dict[tuple[str, str], list[str]] = {}
    for session, report in sorted(pending, key=lambda item: item[1].id):
        if session in current and (kind := _apply(tx, kinds, session, report)):
            gone.setdefault((kind, report.id), []).append(session.agent)
    for (kind, id_), agents in gone.items():
        deletion.confirm_gone(tx, kind, id_, agents)
    for session, refusal in acks:
        if session in current:
            _store_ack(tx, session, refusal)


def _store_ack(tx: Transaction, session: Session, refusal: str) -> None:
    with contextlib.suppress(Refusal):  # its record may have gone since it was looked at
        agent = tx.get("Agent", session.agent)
        assert isinstance(agent, agent_pb2.Agent)
        agent.status.held_revision, agent.status.refusal = session.held_revision, refusal[:MAX_TEXT_CHARS]
        tx.report("Agent", agent)


def _is_current(tx: Transaction, session: Session) -> bool:
    agent = tx.find("Agent", session.agent)
    return isinstance(agent, agent_pb2.Agent) and agent.status.epoch == session.epoch


def _apply(tx: Transaction, kinds: Kinds, session: Session, report: fleet_pb2.Report) -> str:
    """Stores a report. Returns the kind if the resource is marked and the report says that it is gone from the host."""
    kind = _KINDS.get(report.resource.TypeName(), "")
    if not kind or (not report.gone and not _is_reported(kind)):
        return ""
    resource = tx.find(kind, report.id)
    if resource is None or not reach_of_kinds().concerns(tx, session.agent, kind, report.id):
        return ""
    if report.gone:
        return kind if meta(resource).HasField("delete_time") else ""
    try:
        seen = resources.unpack(report.resource)
    except DecodeError:
        log.warning("report.unreadable", agent=session.agent, id=report.id)
        return ""
    _take(tx, resource, seen, report)
    rules = kinds[kind]
    rules.whole(tx, resource, Lock.EXCLUSIVE)  # before its parts, as who changes it does: neither waits for the other
    reported = tx.report(kind, resource)
    waiting = report.outcome == fleet_pb2.OUTCOME_WAITING
    tracking.follow(tx, kind, reported, report.message[:MAX_TEXT_CHARS], waiting=waiting)
    rules.after_report(tx, reported)
    return ""


@cache
def _is_reported(kind: str) -> bool:
    """Whether anything that agents see of a kind is kept."""
    return CONTRACT.kinds[kind].converges or "status" in message_class(kind).DESCRIPTOR.fields_by_name


def _take(tx: Transaction, resource: Message, seen: Message, report: fleet_pb2.Report) -> None:
    """Copies status, observed generation and conditions into the resource. The generation never goes back."""
    head = meta(resource)
    head.observed_generation = max(head.observed_generation, min(report.observed_generation, head.generation))
    still_failed = _is_still_failed(head, report)
    head.state = meta_pb2.STATE_ERROR if still_failed else meta_pb2.STATE_UNSPECIFIED
    # An agent that can't look says nothing of the status; what was known stays.
    if "status" in resource.DESCRIPTOR.fields_by_name and seen.HasField("status"):
        resource.status.CopyFrom(seen.status)  # type: ignore[attr-defined]
    found = list(meta(seen).conditions)
    if report.outcome == fleet_pb2.OUTCOME_FAILED:
        head.state = meta_pb2.STATE_ERROR
        found.append(meta_pb2.Condition(type="Failed", reason="FAILED", message=report.message[:MAX_TEXT_CHARS]))
    if report.outcome == fleet_pb2.OUTCOME_WAITING:
        found.append(meta_pb2.Condition(type="Waiting", reason="WAITING", message=report.message[:MAX_TEXT_CHARS]))
    if still_failed:
        kept = meta_pb2.Meta(conditions=head.conditions)
        found += [condition for condition in kept.conditions if condition.type == "Failed"]
    earlier = {(condition.type, condition.reason): condition for condition in head.conditions}
    for condition in found:
        before = earlier.get((condition.type, condition.reason))
        since = before.transition_time if before is not None else timestamp(tx.now)
        condition.transition_time.CopyFrom(since)
    del head.conditions[:]
    head.conditions.extend(found)


def _is_still_failed(head: meta_pb2.Meta, report: fleet_pb2.Report) -> bool:
    """Whether a failed resource that its agent tries again, as after a restart, stays in ERROR until it succeeds.

    Not when a newer generation is wanted, nor when the report itself says APPLIED or FAILED.
    """
    final = report.outcome in (fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED)
    return head.state == meta_pb2.STATE_ERROR and not final and head.observed_generation >= head.generation
