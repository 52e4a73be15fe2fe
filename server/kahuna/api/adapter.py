"""Adapters."""

from sqlmodel import select

from kahuna.api.service import StandardMethods
from kahuna.api.volume import refuse_while_held
from kahuna.domain.addresses import check_address, check_mac, draw_mac, free_address
from kahuna.store.adapter import Adapter
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa.v2 import adapter_pb2, kaktus_pb2, subnet_pb2, vnet_pb2


class AdapterService(StandardMethods):
    """Network cards: an address and a hardware address, both given unless asked for."""

    kind = "Adapter"

    def admit(self, tx: Transaction, resource: adapter_pb2.Adapter) -> None:
        """Takes an address under the subnet's lock; the database says no to a second taker."""
        subnet = tx.get("Subnet", resource.subnet)
        assert isinstance(subnet, subnet_pb2.Subnet)
        if resource.address:
            check_address(resource.address, subnet.cidr, subnet.gateway)
        else:
            # What a marked adapter still holds is taken, too: its machine may run. A name server is a machine, too: one
            # of ours when an adapter asks for its address, another's until then.
            held = tx.session.exec(select(Adapter.address).where(Adapter.subnet_id == resource.subnet)).all()
            resource.address = free_address(subnet.cidr, subnet.gateway, [*held, *subnet.dns])
        if resource.mac:
            check_mac(resource.mac, *_neighbours(tx, subnet.vnet))
        resource.mac = resource.mac.lower() or self._free_mac(tx)

    def release(self, tx: Transaction, resource: adapter_pb2.Adapter) -> None:
        """An adapter that a machine holds stays."""
        refuse_while_held(tx, "adapter", resource.name, resource.instance)

    def _free_mac(self, tx: Transaction) -> str:
        while True:
            mac = draw_mac()
            if tx.session.exec(select(Adapter.id).where(Adapter.mac == mac)).first() is None:
                return mac


def _neighbours(tx: Transaction, vnet_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """The vnets that share a vnet's bridge, itself among them, and the hosts that may have it: names by id."""
    vnet = tx.get("Vnet", vnet_id)
    assert isinstance(vnet, vnet_pb2.Vnet)
    vnets = {vnet_id: vnet.name}
    if vnet.interface:
        for other in tx.referring("Vnet", "region", vnet.region):
            if isinstance(other, vnet_pb2.Vnet) and other.interface == vnet.interface:
                vnets[other.meta.id] = other.name
    zones = (meta(zone).id for zone in tx.referring("Zone", "region", vnet.region))
    hosts = (host for zone in zones for host in tx.referring("Kaktus", "zone", zone))
    return vnets, {host.meta.id: host.name for host in hosts if isinstance(host, kaktus_pb2.Kaktus)}
