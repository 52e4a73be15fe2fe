"""Operations and deletions as transactions see them: begun, settled by reports, swept when nothing is left."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from google.protobuf.message import Message
from sqlmodel import col, delete, select

from kahuna.domain import lifecycle
from kahuna.domain.reach import REACH
from kahuna.store.audit import Audit
from kahuna.store.command import Command
from kahuna.store.gone import Gone
from kahuna.store.operation import Operation
from kahuna.store.resource import CONTRACT, TABLES, message_of, meta, standing_of, timestamp
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_pb2, kaktus_pb2, kiwi_pb2, operation_pb2, zone_pb2

# What a machine holds and lets go of when it is gone.
BELONGINGS = (("Volume", "instance"), ("Adapter", "instance"))

# Why an operation waits, as its message begins.
_OFFLINE, _STALE, _UNBOUND = _UNREACHED = ("HOST_OFFLINE", "HOST_STALE", "no agent is bound to its host")
# How long a marked resource may wait to be looked at again, in microseconds.
SETTLED = 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Cause:
    """Which method was called, by whom, and why he says he did."""

    method: str
    caller: str
    reason: str = ""


def begin(tx: Transaction, cause: Cause, kind: str, target: Message) -> operation_pb2.Operation:
    """Records what was asked for of a resource; what was under way for it is superseded."""
    head = meta(target)
    for earlier in _open(tx, head.id):
        # A command is not replaced by a state, and the same wish again replaces nothing.
        if head.HasField("delete_time") if earlier.command else earlier.target_generation < head.generation:
            end(tx, earlier, operation_pb2.PHASE_SUPERSEDED, f"superseded by {cause.method}")
    operation = _describe(cause, kind, target)
    operation.target_generation = head.generation
    operation.phase = lifecycle.phase(head.generation, standing_of(kind, target))
    return _record(tx, cause, operation, kind, target)


def begin_command(tx: Transaction, cause: Cause, kind: str, target: Message) -> operation_pb2.Operation:
    """Records something to be done once to a resource. It ends by the agent's word on it, not by a state."""
    operation = _describe(cause, kind, target)
    operation.command, operation.phase = True, operation_pb2.PHASE_RUNNING
    return _record(tx, cause, operation, kind, target)


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


def _record(
    tx: Transaction, cause: Cause, operation: operation_pb2.Operation, kind: str, target: Message
) -> operation_pb2.Operation:
    if operation.phase in lifecycle.OPEN:
        obstacle = _obstacle(tx, kind, target)
        if obstacle:
            operation.phase, operation.message = operation_pb2.PHASE_WAITING, obstacle
    else:
        _close(tx, operation)
    added = tx.add("Operation", operation)
    assert isinstance(added, operation_pb2.Operation)
    _note(tx, cause, added)
    return added


def note(tx: Transaction, cause: Cause, kind: str, target: Message) -> None:
    """Notes in the audit trail what changes nothing, and what no operation follows."""
    _note(tx, cause, _describe(cause, kind, target))


def cancel(tx: Transaction, cause: Cause, operation: operation_pb2.Operation) -> None:
    """Ends an open operation because a caller wants it."""
    end(tx, operation, operation_pb2.PHASE_CANCELLED, "cancelled by its caller")
    _note(tx, cause, operation)


def _note(tx: Transaction, cause: Cause, operation: operation_pb2.Operation) -> None:
    tx.session.add(
        Audit(
            time=tx.now,
            caller=cause.caller,
            method=cause.method,
            reason=cause.reason,
            target_kind=operation.target_kind,
            target=operation.target,
            target_name=operation.target_name,
            project=operation.project,
            operation=operation.meta.id,
        )
    )


def settle(tx: Transaction, kind: str, target: Message, message: str, *, waiting: bool, progress: int = 0) -> None:
    """Moves the open operations of a resource to where a report has brought it."""
    for operation in _open(tx, meta(target).id):
        if operation.command:
            continue
        phase = lifecycle.phase(operation.target_generation, standing_of(kind, target))
        if phase not in lifecycle.OPEN:
            end(tx, operation, phase, message if phase == operation_pb2.PHASE_FAILED else "")
            continue
        operation.phase = operation_pb2.PHASE_WAITING if waiting else operation_pb2.PHASE_RUNNING
        operation.message, operation.progress = message, min(progress, 99)
        tx.put("Operation", operation)


def reconsider(tx: Transaction, *, agents: Collection[str] = (), targets: Collection[str] = ()) -> None:
    """Says anew what open operations wait for: those on agents whose streams have turned, or on these targets."""
    rows = tx.session.exec(select(Operation).where(col(Operation.phase).in_(lifecycle.OPEN))).all()
    for row in rows:
        operation = message_of("Operation", row)
        assert isinstance(operation, operation_pb2.Operation)
        target = tx.find(operation.target_kind, operation.target)
        if target is None:
            continue
        concerned = REACH.agents(tx, operation.target_kind, operation.target)
        if operation.target not in targets and concerned.isdisjoint(agents):
            continue
        obstacle = _obstacle(tx, operation.target_kind, target)
        if obstacle or operation.message.startswith(_UNREACHED):
            operation.phase = operation_pb2.PHASE_WAITING if obstacle else operation_pb2.PHASE_RUNNING
            operation.message = obstacle
            tx.put("Operation", operation)


def sweep(tx: Transaction, kind: str, id_: str) -> None:
    """Takes a marked resource out when no agent can hold it and nothing names it; then what it named, likewise."""
    resource = tx.find(kind, id_)
    if resource is None or not meta(resource).HasField("delete_time") or _holders(tx, kind, resource):
        return
    belongings: list[tuple[str, str]] = []
    if kind == "Instance":
        for other, field in BELONGINGS:
            for belonging in tx.referring(other, field, id_):
                belonging.ClearField(field)
                tx.put(other, belonging)
                belongings.append((other, meta(belonging).id))
    if tx.has_referring(kind, id_):
        return
    tx.remove(kind, id_)
    tx.session.execute(delete(Command).where(col(Command.target_id) == id_))
    for operation in _open(tx, id_):
        if operation.command:
            end(tx, operation, operation_pb2.PHASE_SUPERSEDED, "superseded by the deletion")
        else:
            end(tx, operation, operation_pb2.PHASE_DONE, "")
    for other, belonging_id in belongings:
        sweep(tx, other, belonging_id)
    if isinstance(resource, kaktus_pb2.Kaktus | kiwi_pb2.Kiwi):
        sweep_networks(tx, resource)
    for named in CONTRACT.kinds[kind].message.fields.values():
        if named.ref and not named.repeated and getattr(resource, named.name):
            sweep(tx, named.ref, getattr(resource, named.name))


def sweep_networks(tx: Transaction, node: kaktus_pb2.Kaktus | kiwi_pb2.Kiwi) -> None:
    """Of a region's networks, takes out those that waited for the word of a node which has none any more."""
    place = node if isinstance(node, kiwi_pb2.Kiwi) else tx.find("Zone", node.zone)
    if not isinstance(place, kiwi_pb2.Kiwi | zone_pb2.Zone):
        return  # the zone went with its last host, whose networks were looked at then
    for vnet in tx.referring("Vnet", "region", place.region):
        for subnet in tx.referring("Subnet", "vnet", meta(vnet).id):
            sweep(tx, "Subnet", meta(subnet).id)
        sweep(tx, "Vnet", meta(vnet).id)


def sweep_marked(tx: Transaction) -> None:
    """Takes out what two transactions, each removing one of a parent's last children, have left to the other."""
    for kind, table in TABLES.items():
        marked = select(table.id).where(col(table.delete_time) < tx.now - SETTLED)
        for id_ in tx.session.exec(marked).all():
            sweep(tx, kind, id_)


def confirm_gone(tx: Transaction, kind: str, id_: str, agents: Iterable[str]) -> None:
    """Takes agents' word that a marked resource is not on their hosts any more."""
    for agent in agents:
        tx.insert_new(Gone, object_id=id_, agent_id=agent)
    sweep(tx, kind, id_)


def _holders(tx: Transaction, kind: str, resource: Message) -> set[str]:
    """The agents that may still have a marked resource on their hosts."""
    id_ = meta(resource).id
    holders = {agent for agent in REACH.holders(tx, kind, id_) if _has_signed_in(tx, agent)}
    words = tx.session.exec(select(Gone.agent_id).where(Gone.object_id == id_)).all() if holders else ()
    return holders.difference(words)


def _has_signed_in(tx: Transaction, agent: str) -> bool:
    """Whether an agent can have made anything at all."""
    found = tx.find("Agent", agent)
    return isinstance(found, agent_pb2.Agent) and found.status.epoch > 0


def _obstacle(tx: Transaction, kind: str, target: Message) -> str:
    """Why nothing will happen for now, in words, or nothing."""
    concerned = REACH.agents(tx, kind, meta(target).id)
    if not concerned:
        return f"{_UNBOUND}; bind one"
    for id_ in sorted(concerned):
        agent = tx.find("Agent", id_)
        if not isinstance(agent, agent_pb2.Agent) or agent.status.stream == agent_pb2.STREAM_ONLINE:
            continue
        if agent.status.stream == agent_pb2.STREAM_STALE:
            return f"{_STALE}: agent {agent.name} is connected and silent; it is done when it is heard of again"
        return f"{_OFFLINE}: agent {agent.name} is not connected; it is done when it comes back"
    return ""


def _open(tx: Transaction, target: str) -> list[operation_pb2.Operation]:
    rows = tx.session.exec(
        select(Operation).where(Operation.target == target, col(Operation.phase).in_(lifecycle.OPEN)).with_for_update()
    ).all()
    found = [message_of("Operation", row) for row in rows]
    return [operation for operation in found if isinstance(operation, operation_pb2.Operation)]


def end(tx: Transaction, operation: operation_pb2.Operation, phase: operation_pb2.Phase, message: str) -> None:
    """Ends an operation for good."""
    operation.phase, operation.message = phase, message
    _close(tx, operation)
    tx.put("Operation", operation)


def _close(tx: Transaction, operation: operation_pb2.Operation) -> None:
    operation.end_time.CopyFrom(timestamp(tx.now))
    if operation.phase == operation_pb2.PHASE_DONE:
        operation.progress = 100
