"""Agents: the platform's programs on nodes, which connect to Kahuna; each serves one node at most."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from kahuna.domain.changes import new_references
from kahuna.domain.errors import Refusal, on_field
from kahuna.kinds.kind import Kind
from kahuna.store.resource import CONTRACT, Lock, Resource, meta
from kahuna.store.transaction import Transaction
from kahuna.store.view import View
from kowa.v2 import agent_pb2

# The kinds of nodes, and the field of each that names its agents.
_AGENTS_OF_NODES = {"Kaktus": "agent", "Kiwi": "members.agent"}


class Agent(Resource, table=True):
    name: str

    lock_by_reference = Lock.EXCLUSIVE


class Agents(Kind[agent_pb2.Agent], table=Agent):
    def before_delete(self, tx: Transaction, resource: agent_pb2.Agent) -> None:
        """Refuses while its node is being deleted: only this agent can report that nothing is left on it."""
        for _, node in nodes_of(tx, resource.meta.id):
            if node.meta.HasField("delete_time"):
                raise Refusal(
                    "IN_USE",
                    f"agent {resource.name} serves {node.name}, whose deletion waits for its word; "
                    "let it come back or, if the host is gone for good, forget the host",
                )


def check_agents(tx: Transaction, node: Message, before: Message | None = None) -> None:
    """Refuses a new or changed node whose agent serves another, even if that one is being deleted.

    The caller has locked the agents that the node names, so that the result stays true.
    """
    for path, kind, agent in new_references(before, node):
        for served, other in nodes_of(tx, agent) if kind == "Agent" else ():
            if other.meta.id != meta(node).id:
                going = ", which is being deleted" if other.meta.HasField("delete_time") else ""
                reason = f"it serves {CONTRACT.kinds[served].command} {other.name}{going}"
                raise on_field("IN_USE", path, f"{reason}; an agent serves one node at most, choose another")


def nodes_of(reader: View | Transaction, agent: str) -> Iterator[tuple[str, Any]]:
    """Yields the nodes that an agent serves, each with its kind."""
    for kind, field in _AGENTS_OF_NODES.items():
        for id_ in sorted(reader.sources(kind, field, {agent})):
            if node := reader.find(kind, id_):  # another transaction may have removed it meanwhile
                yield kind, node
