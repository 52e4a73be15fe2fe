"""Stores what agents report: all sessions' reports in one transaction, at most every 20 ms."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, MutableSequence
from functools import partial
from itertools import accumulate, islice
from typing import Any, NamedTuple

import structlog
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from kahuna.domain import lifecycle
from kahuna.fleet import checks
from kahuna.fleet.session import DROPPED, MAX_TEXT_CHARS, WIRE_OVERHEAD_BYTES, Session, in_slices
from kahuna.kinds import deletion, tracking
from kahuna.kinds.kind import Kind, Kinds
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, TABLES, Lock, copy_of, meta
from kahuna.store.transaction import Transaction
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, kaktus_pb2, kiwi_pb2, meta_pb2

log = structlog.get_logger()

STORE_INTERVAL_S = 0.02
MAX_TRANSACTION_SIZE = 250  # reports and acks in one transaction: a user's change waits for no more
MAX_WAITING_BYTES = 1 << 20  # of an agent's unstored reports; above it, its stream is not read
# Sizes of a reported resource and, for a node, of its lists of what is unknown (strangers) and what is missing (drift),
# and of each fact.
MAX_RESOURCE_BYTES, MAX_STRANGERS_BYTES, MAX_DRIFT_BYTES, MAX_FACT_BYTES = 64 << 10, 44 << 10, 4 << 10, 3500
MAX_NODE_BYTES = 512 << 10  # of a reported node whose lists are cut to fit; a larger one is not even read
_NODES: dict[str, type[kaktus_pb2.Kaktus | kiwi_pb2.Kiwi]] = {"kaktus": kaktus_pb2.Kaktus, "kiwi": kiwi_pb2.Kiwi}
MAX_NAMED_AGENTS = 10  # with a problem with one shared resource; those of others are not shown until these are over
SHOW_INTERVAL_S = 5.0  # between two updates of the dropped reports shown with agents
_REPORTED = {name for name, kind in CONTRACT.kinds.items() if kind.converges or "status" in kind.message.fields}
# Realised by any number of agents, without a status: only problems with them and their deletion are stored.
_SHARED = {name for name, table in TABLES.items() if table.reaches} - _REPORTED
_CONDITION_TYPES = {fleet_pb2.OUTCOME_FAILED: "Failed", fleet_pb2.OUTCOME_WAITING: "Waiting"}


class Pending(NamedTuple):
    """A message of a session, until it is stored; with the resource in a report, once that has been read."""

    session: Session
    message: fleet_pb2.Report | fleet_pb2.Ack
    observed: Message | None = None


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
        self._dropping: set[Session] = set()  # sessions with dropped reports that are not shown yet
        self._dropped = asyncio.Event()

    async def add(self, session: Session, reports: Collection[fleet_pb2.Report]) -> None:
        """Takes an agent's reports, to be stored soon. Returns when the agent may send more."""
        await session.slice_known.wait()
        await session.ack_stored.wait()
        async for report in in_slices(reports):
            kind = session.kind_of(report.id)
            name = CONTRACT.kinds[kind].message.name if kind else ""
            if drop := checks.why_dropped(report, name, session.holdings.get(report.id)):
                self._drop(session, report.id, drop)
            elif report.gone or kind in _REPORTED or (kind in _SHARED and self._is_news(session, kind, report)):
                self.put(session, _shortened(session.agent, report))
        async with self._stored:
            await self._stored.wait_for(lambda: self._waiting[session.agent] <= MAX_WAITING_BYTES)

    async def run(self) -> None:
        """Stores incoming reports and acks, until cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(STORE_INTERVAL_S)
            await self._commit(self._read(await self._take()))

    async def show_dropped(self) -> None:
        """Shows the numbers of dropped reports with their agents, until cancelled."""
        while True:
            await self._dropped.wait()
            self._dropped.clear()
            sessions, self._dropping = self._dropping, set()
            try:
                await self._store.persist(partial(_store_dropped, sessions=sessions))
            except Exception as error:  # Error boundary: the next ones may be stored
                log.error("dropped_reports.failed", exc_info=error)
            await asyncio.sleep(SHOW_INTERVAL_S)

    def put(self, session: Session, message: fleet_pb2.Report | fleet_pb2.Ack) -> None:
        """Takes a report, or the ack of a batch (stored, or refused with a reason)."""
        key = session.agent, _id(message)
        if isinstance(message, fleet_pb2.Ack):
            self._acks[key] = Pending(session, message)
        else:
            before = self._pending.get(key)
            self._waiting[session.agent] += message.ByteSize() - (before.message.ByteSize() if before else 0)
            self._pending[key] = Pending(session, message)
        self._woken.set()

    def _drop(self, session: Session, id_: str, drop: checks.Drop) -> None:
        session.drop(id_, drop)
        self._dropping.add(session)
        self._dropped.set()

    def _is_news(self, session: Session, kind: str, report: fleet_pb2.Report) -> bool:
        """Whether a report on a shared resource has a problem, or ends one. All others cost no transaction."""
        if report.outcome in _CONDITION_TYPES:
            session.troubled.add(report.id)
            return True
        if report.id in session.troubled:
            session.troubled.remove(report.id)
            return True
        found = self._store.view.find(kind, report.id)
        return found is not None and any(condition.agent == session.agent for condition in meta(found).conditions)

    def _read(self, pending: Iterable[Pending]) -> list[Pending]:
        """Reads the resources in reports, outside of any transaction, and drops those that are not believed."""
        found = []
        for item in pending:
            if isinstance(item.message, fleet_pb2.Report) and not item.message.gone:
                observed = checks.read(item.message)
                if isinstance(observed, checks.Drop):
                    self._drop(item.session, item.message.id, observed)
                    continue
                item = item._replace(observed=observed)
            found.append(item)
        return found

    async def _take(self) -> list[Pending]:
        """Removes and returns the next messages to store."""
        acks = [self._acks.pop(key) for key in list(islice(self._acks, MAX_TRANSACTION_SIZE))]
        pending = [self._pending.pop(key) for key in list(islice(self._pending, MAX_TRANSACTION_SIZE - len(acks)))]
        for session, message, _ in pending:
            self._waiting[session.agent] -= message.ByteSize()
        self._waiting = +self._waiting
        if not self._pending and not self._acks:
            self._woken.clear()
        async with self._stored:
            self._stored.notify_all()
        return acks + pending

    async def _commit(self, pending: list[Pending]) -> None:
        """Stores all in one transaction or, if that fails, each in its own, so that one bad message loses no other."""
        if not pending:
            return
        try:
            await self._store.persist(partial(_store, kinds=self._kinds, pending=pending))
        except Exception as error:
            log.error("reports.failed", count=len(pending), exc_info=error)
            for item in pending:  # also a single one: a second attempt may succeed
                try:
                    await self._store.persist(partial(_store, kinds=self._kinds, pending=[item]))
                except Exception as again:
                    event = "ack.failed" if isinstance(item.message, fleet_pb2.Ack) else "report.failed"
                    log.error(event, agent=item.session.agent, id=_id(item.message), exc_info=again)


def _id(message: fleet_pb2.Report | fleet_pb2.Ack) -> str:
    """The id of the reported resource; empty for an ack."""
    return message.id if isinstance(message, fleet_pb2.Report) else ""


def _shortened(agent: str, report: fleet_pb2.Report) -> fleet_pb2.Report:
    """A report with a shortened message. If its resource is too large, it becomes a report of that failure."""
    report.message = report.message[:MAX_TEXT_CHARS]
    node = _NODES.get(resources.noun_of(report.resource))
    # Reading one that is far too large would hold up all others.
    if node and report.resource.ByteSize() <= MAX_NODE_BYTES:
        _cut_node(node, report.resource)
    size = report.resource.ByteSize()
    short = fleet_pb2.Report()
    if size <= MAX_RESOURCE_BYTES:
        short.CopyFrom(report)  # a reference to a part of the message would keep all of it in memory
        return short
    DROPPED.labels("too_long").inc()
    log.warning("report.too_long", agent=agent, id=report.id, size=size)
    report.resource.ClearField("value")
    report.outcome = fleet_pb2.OUTCOME_FAILED
    problem = f"its agent says {size} bytes of it, and at most {MAX_RESOURCE_BYTES} are taken"
    report.message = f"{problem}; the agent's log may say why"
    short.CopyFrom(report)
    return short


def _cut_node(node: type[kaktus_pb2.Kaktus | kiwi_pb2.Kiwi], packed: any_pb2.Any) -> None:
    """Cuts the lists of strangers and of drift, which may be long after a restore, and adds how many were cut.

    Facts of an implausible size are left out, so that the rest, such as the capacity, is stored all the same.
    """
    with contextlib.suppress(DecodeError):
        found = node.FromString(packed.value)
        if isinstance(found, kaktus_pb2.Kaktus):
            for name in ("cpu_model", "cpu_flags", "numa_nodes", "underlay_address"):
                if kaktus_pb2.KaktusStatus(**{name: getattr(found.status, name)}).ByteSize() > MAX_FACT_BYTES:
                    found.status.ClearField(name)
        _cut(found.status.strangers, MAX_STRANGERS_BYTES)
        _cut(found.status.drift, MAX_DRIFT_BYTES)
        packed.value = found.SerializeToString()


def _cut(texts: MutableSequence[str], max_bytes: int) -> None:
    sizes = accumulate(len(text.encode()) + WIRE_OVERHEAD_BYTES for text in texts)
    more = sum(size > max_bytes for size in sizes)
    if more:
        texts[-more:] = [f"and {more} more"]


def _store(tx: Transaction, kinds: Kinds, pending: Collection[Pending]) -> None:
    gone: dict[tuple[str, str], list[str]] = {}
    agents = tx.find_all(agent_pb2.Agent, {item.session.agent for item in pending})
    epochs = {agent.meta.id: agent.status.epoch for agent in agents}
    current = [item for item in pending if epochs.get(item.session.agent) == item.session.epoch]
    # Every transaction that locks several rows locks resources by their ids first, then agents.
    for session, message, observed in sorted(current, key=lambda item: (_id(item.message), item.session.agent)):
        if isinstance(message, fleet_pb2.Report) and (kind := _apply(tx, kinds, session, message, observed)):
            gone.setdefault((kind, message.id), []).append(session.agent)
    for (kind, id_), holders in gone.items():
        deletion.confirm_gone(tx, kind, id_, holders)
    acks = {session.agent: (session, message) for session, message, _ in current if isinstance(message, fleet_pb2.Ack)}
    for agent in tx.lock_all(agent_pb2.Agent, acks.keys()):
        session, ack = acks[agent.meta.id]
        agent.status.held_revision = session.held_revision
        agent.status.refusal = ack.refusal[:MAX_TEXT_CHARS]
        tx.report("Agent", agent)


def _store_dropped(tx: Transaction, sessions: Iterable[Session]) -> None:
    """Stores the numbers of dropped reports, each with its agent while that session is its newest."""
    newest = {session.agent: session for session in sorted(sessions, key=lambda session: session.epoch)}
    for agent in tx.lock_all(agent_pb2.Agent, newest.keys()):
        session = newest[agent.meta.id]
        if agent.status.epoch == session.epoch:
            del agent.status.dropped_reports[:]
            agent.status.dropped_reports.extend(session.dropped[reason] for reason in sorted(session.dropped))
            tx.report("Agent", agent)


def _apply(tx: Transaction, kinds: Kinds, session: Session, report: fleet_pb2.Report, observed: Message | None) -> str:
    """Stores a report. Returns the kind if a resource marked for deletion is gone from the host, else nothing."""
    kind = session.kind_of(report.id)
    resource = tx.find(kind, report.id) if kind else None
    if resource is None or not reach_of_kinds().concerns(tx, session.agent, kind, report.id):
        return ""  # it has left the slice meanwhile
    if observed is None:
        return kind if checks.is_gone(meta(resource), report) else ""
    rules = kinds[kind]
    if kind in _SHARED:
        applied = False
        _set_problem(tx, kind, resource, session.agent, report)
        problem = next(iter(meta(resource).conditions), None)
        message, waiting = (problem.message, problem.type == "Waiting") if problem else ("", False)
    else:
        message = _copy_observed(tx, rules, resource, observed, report)
        waiting = bool(message) and report.outcome in (fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_APPLIED)
        is_current = report.observed_generation == meta(resource).generation
        applied = report.outcome == fleet_pb2.OUTCOME_APPLIED and is_current and resources.has_status(observed)
    rules.whole(tx, resource, Lock.EXCLUSIVE)  # before its part, in the order of an update: no deadlock
    reported = tx.report(kind, resource)
    tracking.advance(tx, reported, message, waiting=waiting)
    rules.after_report(tx, reported, applied=applied)
    return ""


def _copy_observed(
    tx: Transaction, rules: Kind[Any], resource: Message, observed: Message, report: fleet_pb2.Report
) -> str:
    """Copies what an agent has observed into the resource. Returns the message for its operations."""
    head = meta(resource)
    before, is_current = copy_of(head), report.observed_generation == head.generation
    # An agent that can't observe the resource sends no status; the last one is kept.
    if seen := resources.has_status(observed):
        resource.status.CopyFrom(observed.status)  # type: ignore[attr-defined]
    message, type_ = report.message[:MAX_TEXT_CHARS], _CONDITION_TYPES.get(report.outcome, "")
    outcome, generation, difference = report.outcome, report.observed_generation, ""
    if outcome == fleet_pb2.OUTCOME_APPLIED and is_current:
        difference = rules.why_not_as_wanted(resource, seen=seen)
    if difference:
        message, type_ = difference, "Waiting"
    elif outcome == fleet_pb2.OUTCOME_FAILED and not is_current:
        message = type_ = ""  # the newer generation may succeed
    head.state = lifecycle.state_to_store(before, outcome, generation, as_wanted=not difference)
    head.observed_generation = lifecycle.observed_generation(before, outcome, generation)
    found = list(meta(observed).conditions)
    if type_:
        found.append(meta_pb2.Condition(type=type_, reason=type_.upper(), message=message))
    if head.state == meta_pb2.STATE_ERROR and type_ != "Failed":
        found += [condition for condition in before.conditions if condition.type == "Failed"]
    _set_conditions(tx, head, found)
    return message


def _set_problem(tx: Transaction, kind: str, resource: Message, agent: str, report: fleet_pb2.Report) -> None:
    """Replaces an agent's condition of a shared resource. Conditions of agents that it no longer concerns end."""
    head, reach = meta(resource), reach_of_kinds()
    others = {condition.agent for condition in head.conditions} - {agent}
    concerned = {other for other in others if reach.concerns(tx, other, kind, head.id)}
    found = [condition for condition in head.conditions if condition.agent in concerned]
    if (type_ := _CONDITION_TYPES.get(report.outcome)) and len(found) < MAX_NAMED_AGENTS:
        message = f"agent {tx.one(agent_pb2.Agent, agent).name}: {report.message}"[:MAX_TEXT_CHARS]
        found.append(meta_pb2.Condition(type=type_, reason=type_.upper(), message=message, agent=agent))
    _set_conditions(tx, head, found)


def _set_conditions(tx: Transaction, head: meta_pb2.Meta, found: list[meta_pb2.Condition]) -> None:
    """Sets the conditions. Those that there were before with the same reason keep their times."""
    since = {
        (condition.type, condition.reason, condition.agent): condition.transition_time.ToMicroseconds()
        for condition in head.conditions
    }
    kept = [copy_of(condition) for condition in found]
    for condition in kept:
        key = condition.type, condition.reason, condition.agent
        condition.transition_time.FromMicroseconds(since.get(key, tx.now))
    del head.conditions[:]
    head.conditions.extend(kept)
