"""Hosts."""

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import Refusal
from kahuna.store import operations
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2


class KaktusService(StandardMethods):
    """Hosts that run machines; one that never comes back can be forgotten."""

    kind = "Kaktus"

    def amend(self, tx: Transaction, before: kaktus_pb2.Kaktus, after: kaktus_pb2.Kaktus) -> None:
        """The agent stays while it may hold something: without it, what it holds would count as gone."""
        if before.agent and after.agent != before.agent and tx.has_referring(self.kind, before.meta.id):
            raise Refusal(
                "IN_USE",
                f"agent: host {before.name} has machines or pools that its agent holds; delete them first, "
                "or, if the host is gone for good, forget it",
            )

    def forget(self, tx: Transaction, resource: kaktus_pb2.Kaktus, request: kaktus_pb2.ForgetKaktusRequest) -> None:
        """Nobody holds anything on a host without an agent, so what was waiting for its word is released."""
        resource.ClearField("agent")
        tx.put(self.kind, resource)
        held = [("Instance", meta(machine).id) for machine in tx.referring("Instance", "kaktus", resource.meta.id)]
        for pool in tx.referring("StoragePool", "kaktus", resource.meta.id):
            pool_id = meta(pool).id
            held += [("Volume", meta(volume).id) for volume in tx.referring("Volume", "storage_pool", pool_id)]
            held += [("Template", meta(image).id) for image in tx.referring("Template", "storage_pool", pool_id)]
            held.append(("StoragePool", pool_id))
        zone = tx.find("Zone", resource.zone)
        for vnet in tx.referring("Vnet", "region", zone.region if zone else ""):  # type: ignore[attr-defined]
            held += [("Subnet", meta(subnet).id) for subnet in tx.referring("Subnet", "vnet", meta(vnet).id)]
            held.append(("Vnet", meta(vnet).id))
        for kind, id_ in held:
            operations.sweep(tx, kind, id_)
