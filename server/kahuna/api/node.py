"""What hosts and network nodes share: each has an agent, and no two have the same."""

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import Refusal
from kahuna.store.resource import CONTRACT, meta
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2, kiwi_pb2

Node = kaktus_pb2.Kaktus | kiwi_pb2.Kiwi
NODES = ("Kaktus", "Kiwi")


class NodeService(StandardMethods):
    """Whoever names an agent has locked it, so that what is seen here stays so."""

    def admit(self, tx: Transaction, resource: Node) -> None:
        """Refuses an agent that serves another node, be that one going."""
        for kind in NODES:
            for node in tx.referring(kind, "agent", resource.agent) if resource.agent else ():
                assert isinstance(node, Node)
                if node.meta.id != resource.meta.id:
                    going = ", which is being deleted" if meta(node).HasField("delete_time") else ""
                    raise Refusal(
                        "IN_USE",
                        f"agent: it serves {CONTRACT.kinds[kind].command} {node.name}{going}; "
                        "an agent serves one node at most, choose another",
                    )

    def amend(self, tx: Transaction, before: Node, after: Node) -> None:
        """Another agent is looked at as at first."""
        if after.agent != before.agent:
            self.admit(tx, after)
