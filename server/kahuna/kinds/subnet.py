"""Subnets: ranges of addresses on a vnet."""

from sqlmodel import Field

from kahuna.domain.addresses import check_subnet
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Lock, Resource, meta, unique_unless_deleted
from kahuna.store.transaction import Transaction
from kowa.v2 import region_pb2, subnet_pb2, vnet_pb2


class Subnet(Resource, table=True):
    """Ranges of addresses; who names one takes an address of it."""

    vnet_id: str = Field(foreign_key="vnet.id", index=True)
    name: str
    cidr: str

    __table_args__ = (unique_unless_deleted("vnet_id", "name"),)
    lock_by_reference = Lock.EXCLUSIVE


class Subnets(Kind[subnet_pb2.Subnet]):
    """Ranges of addresses; within a region none overlaps another."""

    table = Subnet
    reaches = ("vnet.region.Zone(region).Kaktus(zone).agent", "vnet.region.Kiwi(region).agent")

    def admit(self, tx: Transaction, resource: subnet_pb2.Subnet) -> None:
        """Locks the region, so that two overlapping ranges can't be taken at once."""
        region = tx.one(vnet_pb2.Vnet, resource.vnet).region
        tx.lock(region_pb2.Region, region)
        others = [
            (subnet.name, subnet.cidr)
            for vnet in tx.each(vnet_pb2.Vnet, "region", region)
            for subnet in tx.each(subnet_pb2.Subnet, "vnet", vnet.meta.id)
            if not meta(subnet).HasField("delete_time")
        ]
        resource.gateway = check_subnet(resource.cidr, resource.gateway, others)
