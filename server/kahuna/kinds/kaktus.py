"""Kaktuses: the hosts of a zone, which run instances."""

from sqlmodel import Field

from kahuna.domain.errors import Refusal
from kahuna.kinds import command, deletion, tracking
from kahuna.kinds.node import NodeKind
from kahuna.kinds.verbs import changes_state_when_deleting
from kahuna.store.resource import Resource, unique_unless_deleted
from kahuna.store.transaction import Transaction
from kowa.v2 import instance_pb2, kaktus_pb2, storage_pool_pb2, template_pb2, volume_pb2


class Kaktus(Resource, table=True):
    """Hosts of a zone; an agent belongs to one at most."""

    zone_id: str = Field(foreign_key="zone.id", index=True)
    name: str
    agent_id: str | None = Field(default=None, foreign_key="agent.id")

    __table_args__ = (unique_unless_deleted("zone_id", "name"), unique_unless_deleted("agent_id"))
    taken = {("agent_id",): ("IN_USE", "agent: it belongs to another kaktus; an agent serves one node at most")}


class Kaktuses(NodeKind[kaktus_pb2.Kaktus]):
    """Hosts that run instances; one that never comes back can be forgotten."""

    table = Kaktus
    informs = ("agent",)

    def amend(self, tx: Transaction, before: kaktus_pb2.Kaktus, after: kaktus_pb2.Kaktus) -> None:
        """The agent stays while it may hold something: without it, what it holds would count as gone."""
        super().amend(tx, before, after)
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

    def changed(self, tx: Transaction, before: kaktus_pb2.Kaktus, after: kaktus_pb2.Kaktus) -> None:
        """What was waiting for the word of the host's agent is released when there is none any more."""
        if after.agent:
            return
        host = after.meta.id
        held = [instance.meta.id for instance in tx.each(instance_pb2.Instance, "kaktus", host)]
        for pool in tx.each(storage_pool_pb2.StoragePool, "kaktus", host):
            held.append(pool.meta.id)
            held += [volume.meta.id for volume in tx.each(volume_pb2.Volume, "storage_pool", pool.meta.id)]
            held += [template.meta.id for template in tx.each(template_pb2.Template, "storage_pool", pool.meta.id)]
        tracking.explain_waiting(tx, targets=set(held))
        deletion.sweep_marked(tx)
