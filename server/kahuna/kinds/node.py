"""What hosts and network nodes share: each has agents of its own, and no agent serves two."""

from collections.abc import Iterator
from typing import TypeVar, cast

from kahuna.domain.changes import newly_named
from kahuna.domain.errors import Refusal
from kahuna.kinds.kind import Kind
from kahuna.store.resource import CONTRACT
from kahuna.store.transaction import Transaction
from kahuna.store.view import View
from kowa.v2 import kaktus_pb2, kiwi_pb2

Node = kaktus_pb2.Kaktus | kiwi_pb2.Kiwi
N = TypeVar("N", kaktus_pb2.Kaktus, kiwi_pb2.Kiwi)
AGENTS = {"Kaktus": "agent", "Kiwi": "members.agent"}
"""The kinds of nodes, and where each names its agents."""


class NodeKind(Kind[N]):
    """Whoever names an agent has locked it, so that what is seen here stays so."""

    def before_create(self, tx: Transaction, resource: N) -> None:
        """Refuses an agent that serves another node, be that one going."""
        self._check_agents(tx, resource, None)

    def before_update(self, tx: Transaction, before: N, after: N) -> None:
        """Another agent is looked at as at first."""
        self._check_agents(tx, after, before)

    def _check_agents(self, tx: Transaction, resource: N, before: N | None) -> None:
        for place, kind, agent in newly_named(before, resource):
            for served, node in nodes_of(tx, agent) if kind == "Agent" else ():
                if node.meta.id != resource.meta.id:
                    going = ", which is being deleted" if node.meta.HasField("delete_time") else ""
                    raise Refusal(
                        "IN_USE",
                        f"{place}: it serves {CONTRACT.kinds[served].command} {node.name}{going}; "
                        "an agent serves one node at most, choose another",
                    )


def nodes_of(reader: Transaction | View, agent: str) -> Iterator[tuple[str, Node]]:
    """The nodes that an agent serves, each with its kind."""
    for kind, field in AGENTS.items():
        for node in reader.referring(kind, field, agent):
            yield kind, cast(Node, node)
