"""Hosts."""

from kahuna.api.node import Node, NodeService
from kahuna.domain.errors import Refusal
from kahuna.store import commands, operations
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2


class KaktusService(NodeService):
    """Hosts that run machines; one that never comes back can be forgotten."""

    kind = "Kaktus"
    also_when_marked = frozenset({"forget"})

    def amend(self, tx: Transaction, before: Node, after: Node) -> None:
        """The agent stays while it may hold something: without it, what it holds would count as gone."""
        super().amend(tx, before, after)
        if before.agent and after.agent != before.agent and tx.has_referring(self.kind, before.meta.id):
            raise Refusal(
                "IN_USE",
                f"agent: host {before.name} has machines or pools that its agent holds; delete them first, "
                "or, if the host is gone for good, forget it",
            )

    def forget(self, tx: Transaction, resource: kaktus_pb2.Kaktus, request: kaktus_pb2.ForgetKaktusRequest) -> None:
        """Nobody holds anything on a host without an agent, or says what became of what was sent to it."""
        commands.give_up(tx, resource.agent)
        resource.ClearField("agent")

    def sweep(self, tx: Transaction, id_: str) -> None:
        """What was waiting for the word of the host's agent is released with the host."""
        host = tx.find(self.kind, id_)
        held = [("Instance", meta(machine).id) for machine in tx.referring("Instance", "kaktus", id_)]
        for pool in tx.referring("StoragePool", "kaktus", id_):
            pool_id = meta(pool).id
            held += [("Volume", meta(volume).id) for volume in tx.referring("Volume", "storage_pool", pool_id)]
            held += [("Template", meta(image).id) for image in tx.referring("Template", "storage_pool", pool_id)]
            held.append(("StoragePool", pool_id))
        operations.reconsider(tx, targets={held_id for _, held_id in held})
        for kind, held_id in held:
            operations.sweep(tx, kind, held_id)
        if isinstance(host, kaktus_pb2.Kaktus):
            operations.sweep_networks(tx, host)
        super().sweep(tx, id_)
