"""What hosts and network nodes share: each has an agent, and no two have the same."""

from collections.abc import Iterator
from typing import TypeVar

from kahuna.domain.errors import Refusal
from kahuna.kinds.kind import Kind
from kahuna.store.resource import CONTRACT
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2, kiwi_pb2

Node = kaktus_pb2.Kaktus | kiwi_pb2.Kiwi
N = TypeVar("N", kaktus_pb2.Kaktus, kiwi_pb2.Kiwi)


class NodeKind(Kind[N]):
    """Whoever names an agent has locked it, so that what is seen here stays so."""

    def admit(self, tx: Transaction, resource: N) -> None:
        """Refuses an agent that serves another node, be that one going."""
        for kind, node in nodes_of(tx, resource.agent) if resource.agent else ():
            if node.meta.id != resource.meta.id:
                going = ", which is being deleted" if node.meta.HasField("delete_time") else ""
                raise Refusal(
                    "IN_USE",
                    f"agent: it serves {CONTRACT.kinds[kind].command} {node.name}{going}; "
                    "an agent serves one node at most, choose another",
                )

    def amend(self, tx: Transaction, before: N, after: N) -> None:
        """Another agent is looked at as at first."""
        if after.agent != before.agent:
            self.admit(tx, after)


def nodes_of(tx: Transaction, agent: str) -> Iterator[tuple[str, Node]]:
    """The nodes that an agent serves, each with its kind."""
    for host in tx.each(kaktus_pb2.Kaktus, "agent", agent):
        yield "Kaktus", host
    for kiwi in tx.each(kiwi_pb2.Kiwi, "agent", agent):
        yield "Kiwi", kiwi
