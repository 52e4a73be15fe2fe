"""Agents."""

from kahuna.api.node import NODES, Node
from kahuna.api.service import StandardMethods
from kahuna.domain.errors import Refusal
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_pb2


class AgentService(StandardMethods):
    """Programs of ours that dial in."""

    kind = "Agent"

    def release(self, tx: Transaction, resource: agent_pb2.Agent) -> None:
        """What its node still has to let go of, only this agent can report gone."""
        for kind in NODES:
            for node in tx.referring(kind, "agent", resource.meta.id):
                assert isinstance(node, Node)
                if node.meta.HasField("delete_time"):
                    raise Refusal(
                        "IN_USE",
                        f"agent {resource.name} serves {node.name}, whose deletion waits for its word; "
                        "let it come back or, if the host is gone for good, forget the host",
                    )
