"""Operations in transactions: started with a change, advanced by reports, ended."""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from google.protobuf.message import Message
from sqlmodel import Field, col, select

from kahuna.domain import lifecycle
from kahuna.domain.reach import Ids, Member
from kahuna.kinds.reach import reach_of_kinds
from kahuna.security.identity import EVERYTHING, Scope
from kahuna.store.resource import CONTRACT, TABLES, Resource, message_of, meta
from kahuna.store.tables import Audit
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_pb2, operation_pb2

# Beginnings of the message of a waiting operation.
_OFFLINE, _STALE, _UNBOUND = _UNREACHED = ("HOST_OFFLINE", "HOST_STALE", "no agent is bound to its host")
# Microseconds for which an ended operation is kept, and how many are removed in one transaction.
RETENTION_US = 30 * 24 * 3600 * 1_000_000
PRUNE_BATCH_SIZE = 500


class Cause(NamedTuple):
    """The cause of a change. `method` is the call's name, also when a rule or a timer makes it (`StopInstance`);
    `caller` is `admin`, `agent:<id>`, or the rule; `reason` is the text that they give."""

    method: str
    caller: str
    reason: str = ""
    scope: Scope = EVERYTHING


class Operation(Resource, table=True):
    """Operations; `target` is not a foreign key, because an operation outlives its target."""

    target: str = Field(index=True)
    phase: int = Field(index=True)


def begin(tx: Transaction, cause: Cause, kind: str, target: Message) -> operation_pb2.Operation:
    """Records the operation of a change, and supersedes the open ones of the resource."""
    head = meta(target)
    for earlier in open_operations(tx, head.id):
        # A new state does not supersede a command, and the same state again supersedes nothing.
        if head.HasField("delete_time") if earlier.command else earlier.target_generation < head.generation:
            end(tx, earlier, operation_pb2.PHASE_SUPERSEDED, f"superseded by {cause.method}")
    return record(tx, cause, kind, target, lifecycle.phase(head.generation, head))


def record(
    tx: Transaction, cause: Cause, kind: str, target: Message, phase: operation_pb2.Phase, *, command: bool = False
) -> operation_pb2.Operation:
    """Records an operation in some phase, or one of a command. Open operations of the resource go on."""
    operation = _describe(cause, kind, target)
    operation.phase, operation.command = phase, command
    operation.target_generation = 0 if command else meta(target).generation
    if phase in lifecycle.OPEN_PHASES:
        timeout_s = lifecycle.WORK_TIMEOUTS_S.get(cause.method, lifecycle.DEFAULT_WORK_TIMEOUT_S)
        operation.deadline.FromMicroseconds(tx.now + timeout_s * 1_000_000)
        obstacle = _obstacle(tx, _agents(tx, _with_parts(tx, kind, meta(target).id)))
        if obstacle:
            operation.phase, operation.message = operation_pb2.PHASE_WAITING, obstacle
    else:
        _close(tx, operation)
    added = tx.add("Operation", operation)
    _audit(tx, cause, added)
    return added


def audit(tx: Transaction, cause: Cause, kind: str, target: Message) -> None:
    """Adds an entry to the audit trail for a call that has no operation."""
    _audit(tx, cause, _describe(cause, kind, target))


def cancel(tx: Transaction, cause: Cause, operation: operation_pb2.Operation) -> None:
    """Ends an open operation at the request of a caller."""
    end(tx, operation, operation_pb2.PHASE_CANCELLED, "cancelled by its caller")
    _audit(tx, cause, operation)


def advance(tx: Transaction, target: Message, message: str, *, waiting: bool, progress: int | None = None) -> None:
    """Updates the open operations of a resource after a report. Its status may have the progress in percent."""
    if progress is None:
        progress = getattr(getattr(target, "status", None), "progress", 0)
    for operation in open_operations(tx, meta(target).id):
        if operation.command:
            continue
        phase = lifecycle.phase(operation.target_generation, meta(target))
        if phase not in lifecycle.OPEN_PHASES:
            end(tx, operation, phase, message if phase == operation_pb2.PHASE_FAILED else "")
            continue
        operation.phase = operation_pb2.PHASE_WAITING if waiting else operation_pb2.PHASE_RUNNING
        operation.message, operation.progress = message, min(progress, 99)
        tx.put("Operation", operation)


def explain_waiting(tx: Transaction, *, agents: Ids = frozenset(), targets: Ids = frozenset()) -> None:
    """Updates the messages of open operations that concern agents which have connected or gone, or these targets."""
    rows = tx.session.exec(select(Operation).where(col(Operation.phase).in_(lifecycle.OPEN_PHASES))).all()
    for row in rows:
        operation = message_of("Operation", row)
        assert isinstance(operation, operation_pb2.Operation)
        if tx.find(operation.target_kind, operation.target) is None:
            continue
        members = _with_parts(tx, operation.target_kind, operation.target)
        concerned = _agents(tx, members)
        if concerned.isdisjoint(agents) and targets.isdisjoint(id_ for _, id_ in members):
            continue
        obstacle = _obstacle(tx, concerned)
        if obstacle != operation.message and (obstacle or operation.message.startswith(_UNREACHED)):
            operation.phase = operation_pb2.PHASE_WAITING if obstacle else operation_pb2.PHASE_RUNNING
            operation.message = obstacle
            tx.put("Operation", operation)


def open_operations(tx: Transaction, target: str) -> list[operation_pb2.Operation]:
    """Returns the open operations of a resource, locked."""
    query = select(Operation).where(Operation.target == target, col(Operation.phase).in_(lifecycle.OPEN_PHASES))
    return cast(list[operation_pb2.Operation], tx.lock_found("Operation", query))


def end(tx: Transaction, operation: operation_pb2.Operation, phase: operation_pb2.Phase, message: str) -> None:
    """Ends an operation for good."""
    operation.phase, operation.message = phase, message
    _close(tx, operation)
    tx.put("Operation", operation)


def prune(tx: Transaction) -> bool:
    """Removes operations that ended more than RETENTION_US ago. Returns whether there may be more."""
    ended = (
        select(Operation.id)
        .where(col(Operation.phase).not_in(lifecycle.OPEN_PHASES), col(Operation.update_time) < tx.now - RETENTION_US)
        .limit(PRUNE_BATCH_SIZE)
    )
    ids = tx.session.exec(ended).all()
    for id_ in ids:
        tx.remove("Operation", id_)
    return len(ids) == PRUNE_BATCH_SIZE


def _describe(cause: Cause, kind: str, target: Message) -> operation_pb2.Operation:
    head = meta(target)
    return operation_pb2.Operation(
        method=cause.method,
        caller=cause.caller,
        reason=cause.reason,
        target_kind=kind,
        target=head.id,
        target_name=getattr(target, "name", ""),
        project=head.id if kind == "Project" else getattr(target, "project", ""),
    )


def _audit(tx: Transaction, cause: Cause, operation: operation_pb2.Operation) -> None:
    target: dict[str, Any] = {
        name: getattr(operation, name) for name in ("target_kind", "target", "target_name", "project")
    }
    row = Audit(time=tx.now, caller=cause.caller, method=cause.method, reason=cause.reason, **target)
    row.operation = operation.meta.id
    tx.session.add(row)


def _with_parts(tx: Transaction, kind: str, id_: str) -> list[Member]:
    """Returns a resource and its parts."""
    noun, kinds_of_parts = CONTRACT.kinds[kind].noun, [part for part, table in TABLES.items() if table.part_of == kind]
    return [(kind, id_), *((part, found) for part in kinds_of_parts for found in tx.sources(part, noun, {id_}))]


def _agents(tx: Transaction, members: Iterable[Member]) -> set[str]:
    """Returns the agents that any of these resources concerns."""
    return set().union(*(reach_of_kinds().agents(tx, *member) for member in members))


def _obstacle(tx: Transaction, agents: Ids) -> str:
    """Returns the text why these agents do nothing for now; empty if they can."""
    if not agents:
        return f"{_UNBOUND}; bind one"
    for id_ in sorted(agents):
        agent = tx.find("Agent", id_)
        if not isinstance(agent, agent_pb2.Agent) or agent.status.stream == agent_pb2.STREAM_ONLINE:
            continue
        if agent.status.stream == agent_pb2.STREAM_STALE:
            return f"{_STALE}: agent {agent.name} is connected and silent; it is done when it is heard of again"
        return f"{_OFFLINE}: agent {agent.name} is not connected; it is done when it comes back"
    return ""


def _close(tx: Transaction, operation: operation_pb2.Operation) -> None:
    operation.end_time.FromMicroseconds(tx.now)
    if operation.phase == operation_pb2.PHASE_DONE:
        operation.progress = 100
