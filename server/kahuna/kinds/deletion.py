"""Deletion in transactions: a marked row is removed once it is on no host and no other row names it."""

from collections.abc import Iterable

from google.protobuf.message import Message
from sqlmodel import col, delete, select

from kahuna.domain.reach import AGENT
from kahuna.kinds import tracking
from kahuna.kinds.command import Command
from kahuna.kinds.reach import reach_of_kinds
from kahuna.store.resource import CONTRACT, TABLES, message_class, meta
from kahuna.store.tables import Gone
from kahuna.store.transaction import Transaction, references_to
from kowa.v2 import agent_pb2, operation_pb2

# Microseconds after which a marked resource is checked again.
RECHECK_AFTER_US = 60 * 1_000_000


def sweep(tx: Transaction, kind: str, id_: str) -> None:
    """Removes a marked resource if it is on no host and no row names it; then does the same for those it named."""
    resource = tx.find(kind, id_)
    if resource is None or not meta(resource).HasField("delete_time") or _holders(tx, kind, resource):
        return
    parts = list(_clear_references(tx, kind, id_))
    if tx.has_referring(kind, id_):
        return
    tx.remove(kind, id_)
    tx.session.execute(delete(Command).where(col(Command.target_id) == id_))
    for operation in tracking.open_operations(tx, id_):
        if operation.command:
            tracking.end(tx, operation, operation_pb2.PHASE_SUPERSEDED, "superseded by the deletion")
        else:
            tracking.end(tx, operation, operation_pb2.PHASE_DONE, "")
    for part_kind, part in parts:
        sweep(tx, part_kind, part)
    references = CONTRACT.kinds[kind].message.references
    # A kind that reaches agents and also names some is a part of other kinds' paths to agents.
    if kind in reach_of_kinds().order and any(reference.kind == AGENT for reference in references):
        sweep_marked(tx)
    for reference in references:
        for _, named in reference.find(resource):
            sweep(tx, reference.kind, named)


def sweep_marked(tx: Transaction, older_than: int = 0) -> None:
    """Sweeps all resources marked at least `older_than` microseconds ago.

    Their agent may have been removed, or two transactions may each have removed one of the last two children of a
    parent, and seen the other's.
    """
    for kind, table in TABLES.items():
        marked = select(table.id).where(col(table.delete_time) <= tx.now - older_than)
        for id_ in tx.session.exec(marked).all():
            sweep(tx, kind, id_)


def confirm_gone(tx: Transaction, kind: str, id_: str, agents: Iterable[str]) -> None:
    """Records that some agents no longer have a marked resource on their hosts, and removes it if no other has."""
    for agent in agents:
        tx.insert_new(Gone, object_id=id_, agent_id=agent)
    sweep(tx, kind, id_)


def _clear_references(tx: Transaction, kind: str, id_: str) -> Iterable[tuple[str, str]]:
    """Clears the references in `cleared_with_target` to a resource. Yields kind and id of each that had one."""
    for source, field in references_to(kind):
        if field in TABLES[source].cleared_with_target:
            for part in tx.each(message_class(source), field, id_):
                part.ClearField(field)
                tx.put(source, part)
                yield source, meta(part).id


def _holders(tx: Transaction, kind: str, resource: Message) -> set[str]:
    """The agents that may still have a marked resource on their hosts."""
    id_ = meta(resource).id
    # An agent that has never signed in has created nothing.
    agents = {agent: tx.find("Agent", agent) for agent in reach_of_kinds().holders(tx, kind, id_)}
    holders = {key for key, agent in agents.items() if isinstance(agent, agent_pb2.Agent) and agent.status.epoch > 0}
    confirmed = tx.session.exec(select(Gone.agent_id).where(Gone.object_id == id_)).all() if holders else ()
    return holders.difference(confirmed)
