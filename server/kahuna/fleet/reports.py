"""Stores what agents report: all sessions' reports in one transaction, at most every 20 ms."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterable
from functools import partial
from itertools import accumulate, islice

import structlog
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from kahuna.fleet.session import MAX_TEXT_CHARS, WIRE_OVERHEAD_BYTES, Session
from kahuna.kinds import deletion, tracking
from kahuna.kinds.kind import Kinds
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, Lock, meta
from kahuna.store.transaction import Transaction
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, kaktus_pb2, meta_pb2

log = structlog.get_logger()

STORE_INTERVAL_S = 0.02
MAX_TRANSACTION_SIZE = 250  # reports and acks in one transaction: a user's change waits for no more
MAX_WAITING_BYTES = 4 << 20  # of an agent's unstored reports; above it, its stream is not read
# Sizes of a reported resource and, for a host, of its list of unknown domains and files (strangers) and of each fact.
MAX_RESOURCE_BYTES, MAX_STRANGERS_BYTES, MAX_FACT_BYTES = 64 << 10, 48 << 10, 3500
_KINDS = {kind.message.name: name for name, kind in CONTRACT.kinds.items()}  # by the full names of their messages
_REPORTED = {name for name, kind in CONTRACT.kinds.items() if kind.converges or "status" in kind.message.fields}
_CONDITION_TYPES = {fleet_pb2.OUTCOME_FAILED: "Failed", fleet_pb2.OUTCOME_WAITING: "Waiting"}
Pending = tuple[Session, fleet_pb2.Report | fleet_pb2.Ack]
"""A message of a session, until it is stored."""


class Reports:
    """Collects reports and acks, the latest of each resource and agent, and commits them together."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store, self._kinds = store, kinds
        # By agent and id. Stored in the order of arrival, so that no agent delays another; acks before reports.
        self._acks: dict[tuple[str, str], Pending] = {}
        self._pending: dict[tuple[str, str], Pending] = {}
        self._waiting: Counter[str] = Counter()
        self._woken = asyncio.Event()
        self._stored = asyncio.Condition()

    async def add(self, session: Session, reports: Iterable[fleet_pb2.Report]) -> None:
        """Takes an agent's reports, to be stored soon. Returns when the agent may send more."""
        await session.slice_known.wait()
        for report in reports:
            if session.check_in_slice(report.id):
                self.put(session, _shortened(session.agent, report))
        async with self._stored:
            await self._stored.wait_for(lambda: self._waiting[session.agent] <= MAX_WAITING_BYTES)

    async def run(self) -> None:
        """Stores incoming reports and acks, until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(STORE_INTERVAL_S)
            await self._commit(await self._take())

    def put(self, session: Session, message: fleet_pb2.Report | fleet_pb2.Ack) -> None:
        """Takes a report, or the ack of a batch (stored, or refused with a reason)."""
        key = session.agent, _id(message)
        if isinstance(message, fleet_pb2.Ack):
            self._acks[key] = session, message
        else:
            before = self._pending.get(key)
            self._waiting[session.agent] += message.ByteSize() - (before[1].ByteSize() if before else 0)
            self._pending[key] = session, message
        self._woken.set()

    async def _take(self) -> list[Pending]:
        """Removes and returns the next messages to store."""
        acks = [self._acks.pop(key) for key in list(islice(self._acks, MAX_TRANSACTION_SIZE))]
        pending = [self._pending.pop(key) for key in list(islice(self._pending, MAX_TRANSACTION_SIZE - len(acks)))]
        for session, message in pending:
            self._waiting[session.agent] -= message.ByteSize()
        self._waiting = +self._waiting
        if not self._pending and not self._acks:
            self._woken.clear()
        async with self._stored:
            self._stored.notify_all()
        return acks + pending

    async def _commit(self, pending: list[Pending]) -> None:
        """Stores all in one transaction or, if that fails, each in its own, so that one bad message loses no other."""
        try:
            await self._store.persist(partial(_store, kinds=self._kinds, pending=pending))
        except Exception as error:
            log.error("reports.failed", count=len(pending), exc_info=error)
            for session, message in pending:  # also a single one: a second attempt may succeed
                try:
                    await self._store.persist(partial(_store, kinds=self._kinds, pending=[(session, message)]))
                except Exception as again:
                    event = "ack.failed" if isinstance(message, fleet_pb2.Ack) else "report.failed"
                    log.error(event, agent=session.agent, id=_id(message), exc_info=again)


def _id(message: fleet_pb2.Report | fleet_pb2.Ack) -> str:
    """The id of the reported resource; empty for an ack."""
    return message.id if isinstance(message, fleet_pb2.Report) else ""


def _shortened(agent: str, report: fleet_pb2.Report) -> fleet_pb2.Report:
    """A report with a shortened message. If its resource is too large, it becomes a report of that failure."""
    report.message = report.message[:MAX_TEXT_CHARS]
    if resources.noun_of(report.resource) == "kaktus":
        _cut_host(report.resource)
    size = report.resource.ByteSize()
    if size <= MAX_RESOURCE_BYTES:
        return report
    log.warning("report.too_long", agent=agent, id=report.id, size=size)
    report.resource.ClearField("value")
    report.outcome = fleet_pb2.OUTCOME_FAILED
    problem = f"its agent says {size} bytes of it, and at most {MAX_RESOURCE_BYTES} are taken"
    report.message = f"{problem}; the agent's log may say why"
    short = fleet_pb2.Report()
    short.CopyFrom(report)  # a reference to a part of the large one would keep all of it in memory
    return short


def _cut_host(packed: any_pb2.Any) -> None:
    """Cuts the list of strangers, which may be long after a restore, and adds how many were cut.

    Facts of an implausible size are left out, so that the rest, such as the capacity, is stored all the same.
    """
    with contextlib.suppress(DecodeError):
        host = kaktus_pb2.Kaktus.FromString(packed.value)
        for name in ("cpu_model", "cpu_flags", "numa_nodes", "underlay_address"):
            if kaktus_pb2.KaktusStatus(**{name: getattr(host.status, name)}).ByteSize() > MAX_FACT_BYTES:
                host.status.ClearField(name)
        strangers = host.status.strangers
        sizes = accumulate(len(stranger.encode()) + WIRE_OVERHEAD_BYTES for stranger in strangers)
        more = sum(size > MAX_STRANGERS_BYTES for size in sizes)
        if more:
            strangers[-more:] = [f"and {more} more"]
        packed.value = host.SerializeToString()


def _store(tx: Transaction, kinds: Kinds, pending: Collection[Pending]) -> None:
    gone: dict[tuple[str, str], list[str]] = {}
    agents = tx.find_all(agent_pb2.Agent, {session.agent for session, _ in pending})
    epochs = {agent.meta.id: agent.status.epoch for agent in agents}
    current = [item for item in pending if epochs.get(item[0].agent) == item[0].epoch]
    # Every transaction that locks several rows locks resources by their ids first, then agents.
    for session, message in sorted(current, key=lambda item: (_id(item[1]), item[0].agent)):
        if isinstance(message, fleet_pb2.Report) and (kind := _apply(tx, kinds, session, message)):
            gone.setdefault((kind, message.id), []).append(session.agent)
    for (kind, id_), holders in gone.items():
        deletion.confirm_gone(tx, kind, id_, holders)
    acks = {session.agent: (session, ack) for session, ack in current if isinstance(ack, fleet_pb2.Ack)}
    for agent in tx.lock_all(agent_pb2.Agent, acks.keys()):
        session, ack = acks[agent.meta.id]
        agent.status.held_revision = session.held_revision
        agent.status.refusal = ack.refusal[:MAX_TEXT_CHARS]
        tx.report("Agent", agent)


def _apply(tx: Transaction, kinds: Kinds, session: Session, report: fleet_pb2.Report) -> str:
    """Stores a report. Returns the kind if a resource marked for deletion is gone from the host, else nothing."""
    kind = _KINDS.get(report.resource.TypeName(), "")
    if not kind or (not report.gone and kind not in _REPORTED):
        return ""
    resource = tx.find(kind, report.id)
    if resource is None or not reach_of_kinds().concerns(tx, session.agent, kind, report.id):
        return ""
    if report.gone:
        return kind if meta(resource).HasField("delete_time") else ""
    try:
        observed = resources.unpack(report.resource)
    except DecodeError:
        log.warning("report.unreadable", agent=session.agent, id=report.id)
        return ""
    _copy_observed(tx, resource, observed, report)
    rules = kinds[kind]
    rules.whole(tx, resource, Lock.EXCLUSIVE)  # before its part, in the order of an update: no deadlock
    reported = tx.report(kind, resource)
    waiting = report.outcome == fleet_pb2.OUTCOME_WAITING
    tracking.advance(tx, reported, report.message[:MAX_TEXT_CHARS], waiting=waiting)
    rules.after_report(tx, reported)
    return ""


def _copy_observed(tx: Transaction, resource: Message, observed: Message, report: fleet_pb2.Report) -> None:
    """Copies status, observed generation and conditions into the resource. The generation never goes back."""
    head = meta(resource)
    head.observed_generation = max(head.observed_generation, min(report.observed_generation, head.generation))
    # A failed resource that is retried at the same generation, as after a restart, stays in ERROR until it succeeds.
    final = report.outcome in (fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED)
    still_failed = head.state == meta_pb2.STATE_ERROR and not final and head.observed_generation >= head.generation
    failed = still_failed or report.outcome == fleet_pb2.OUTCOME_FAILED
    head.state = meta_pb2.STATE_ERROR if failed else meta_pb2.STATE_UNSPECIFIED
    # An agent that can't observe the resource sends no status; the last one is kept.
    if "status" in resource.DESCRIPTOR.fields_by_name and observed.HasField("status"):
        resource.status.CopyFrom(observed.status)  # type: ignore[attr-defined]
    before = meta_pb2.Meta(conditions=head.conditions).conditions
    since = {(condition.type, condition.reason): condition.transition_time for condition in before}
    found = list(meta(observed).conditions)
    if type_ := _CONDITION_TYPES.get(report.outcome):
        found.append(meta_pb2.Condition(type=type_, reason=type_.upper(), message=report.message[:MAX_TEXT_CHARS]))
    if still_failed:
        found += [condition for condition in before if condition.type == "Failed"]
    for condition in found:
        if earlier := since.get((condition.type, condition.reason)):
            condition.transition_time.CopyFrom(earlier)
        else:
            condition.transition_time.FromMicroseconds(tx.now)
    del head.conditions[:]
    head.conditions.extend(found)
