"""Kaktuses: the hosts of a zone, which run instances."""

from sqlmodel import Field

from kahuna.domain.errors import Refusal
from kahuna.kinds import command
from kahuna.kinds.node import NodeKind
from kahuna.kinds.verbs import changes_state_when_deleting
from kahuna.store.resource import Resource, unique_unless_deleted
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2


class Kaktus(Resource, table=True):
    """Hosts of a zone; an agent belongs to one at most."""

    zone_id: str = Field(foreign_key="zone.id", index=True)
    name: str
    agent_id: str | None = Field(default=None, foreign_key="agent.id")

    __table_args__ = (unique_unless_deleted("zone_id", "name"), unique_unless_deleted("agent_id"))
    constraint_messages = {
        ("agent_id",): ("IN_USE", "agent: it belongs to another kaktus; an agent serves one node at most")
    }
    informs = ("agent",)


class Kaktuses(NodeKind[kaktus_pb2.Kaktus], table=Kaktus):
    """Hosts that run instances; one that never comes back can be forgotten."""

    def before_update(self, tx: Transaction, before: kaktus_pb2.Kaktus, after: kaktus_pb2.Kaktus) -> None:
        """The agent stays while it may hold something: without it, what it holds would count as gone."""
        super().before_update(tx, before, after)
        if before.agent and after.agent != before.agent and tx.has_referring(self.name, before.meta.id):
            raise Refusal(
                "IN_USE",
                f"agent: host {before.name} has machines or pools that its agent holds; delete them first, "
                "or, if the host is gone for good, forget it",
            )

    @changes_state_when_deleting
    def forget(self, tx: Transaction, resource: kaktus_pb2.Kaktus, request: kaktus_pb2.ForgetKaktusRequest) -> None:
        """Nobody holds anything on a host without an agent, or says what became of what was sent to it."""
        command.give_up(tx, resource.agent)
        resource.ClearField("agent")
