"""Adapters: network cards, each with a network and a hardware address."""

from sqlmodel import Field, select

from kahuna.domain.addresses import check_address, check_mac, free_address, mac_of
from kahuna.domain.errors import invalid
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Lock, Resource
from kahuna.store.transaction import Transaction
from kowa.v2 import adapter_pb2, kaktus_pb2, subnet_pb2, vnet_pb2, zone_pb2

_TAKEN = "belongs to another adapter; choose another or leave it out"


class Adapter(Resource, table=True):
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    subnet_id: str = Field(foreign_key="subnet.id", index=True)
    mac: str
    address: str
    instance_id: str | None = Field(default=None, foreign_key="instance.id", index=True)
    kompute_id: str | None = Field(default=None, foreign_key="kompute.id", index=True)

    lock_by_reference = Lock.EXCLUSIVE
    cleared_with_target = frozenset({"instance"})
    part_of = "Kompute"
    constraint_messages = {
        ("subnet_id", "address"): ("ADDRESS_TAKEN", "address", "{address} " + _TAKEN),
        ("mac",): ("ADDRESS_TAKEN", "mac", "{mac} " + _TAKEN),
    }
    reaches = ("instance.kaktus.agent",)


class Adapters(Kind[adapter_pb2.Adapter], table=Adapter):
    def before_create(self, tx: Transaction, resource: adapter_pb2.Adapter) -> None:
        """Assigns addresses under the subnet's lock; a unique index refuses an address that is taken meanwhile."""
        subnet = tx.lock(subnet_pb2.Subnet, resource.subnet)
        owner = tx.one(vnet_pb2.Vnet, subnet.vnet).project
        if owner and owner != resource.project:
            raise invalid("subnet", f"subnet {subnet.name} is another project's; choose one of this project's")
        if resource.address:
            check_address(resource.address, subnet.cidr, subnet.gateway)
        else:
            # The address of a marked adapter is still in use: its instance may run. Those of the subnet's name servers
            # are kept free, too: an adapter gets one only if it requests it.
            used = tx.session.exec(select(Adapter.address).where(Adapter.subnet_id == resource.subnet)).all()
            resource.address = free_address(subnet.cidr, subnet.gateway, [*used, *subnet.dns])
        if resource.mac:
            check_mac(resource.mac, *_neighbours(tx, subnet.vnet))
        else:
            resource.mac = self._free_mac(tx)

    def _free_mac(self, tx: Transaction) -> str:
        while True:
            mac = mac_of(self.platform.random.randbytes(3))
            if tx.session.exec(select(Adapter.id).where(Adapter.mac == mac)).first() is None:
                return mac


def _neighbours(tx: Transaction, vnet_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the vnets that share a vnet's bridge, itself included, and the hosts that may have it: id -> name."""
    vnet = tx.one(vnet_pb2.Vnet, vnet_id)
    vnets = {vnet_id: vnet.name}
    if vnet.interface:
        others = tx.each(vnet_pb2.Vnet, "region", vnet.region)
        vnets |= {other.meta.id: other.name for other in others if other.interface == vnet.interface}
    zones = (zone.meta.id for zone in tx.each(zone_pb2.Zone, "region", vnet.region))
    return vnets, {host.meta.id: host.name for zone in zones for host in tx.each(kaktus_pb2.Kaktus, "zone", zone)}
