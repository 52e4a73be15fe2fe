"""Agents: programs of ours that dial in."""

from kahuna.domain.errors import Refusal
from kahuna.kinds.kind import Kind
from kahuna.kinds.node import nodes_of
from kahuna.store.resource import Lock, Resource, unique_unless_deleted
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_pb2


class Agent(Resource, table=True):
    """Agents; who names one takes it."""

    name: str

    __table_args__ = (unique_unless_deleted("name"),)
    lock_by_reference = Lock.EXCLUSIVE


class Agents(Kind[agent_pb2.Agent], table=Agent):
    """Programs of ours that dial in."""

    def before_delete(self, tx: Transaction, resource: agent_pb2.Agent) -> None:
        """Refuses while its node is being deleted: only this agent can report what is gone from it."""
        for _, node in nodes_of(tx, resource.meta.id):
            if node.meta.HasField("delete_time"):
                raise Refusal(
                    "IN_USE",
                    f"agent {resource.name} serves {node.name}, whose deletion waits for its word; "
                    "let it come back or, if the host is gone for good, forget the host",
                )
