"""Subnets: ranges of addresses on a vnet."""

from sqlmodel import Field

from kahuna.domain.addresses import check_subnet
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Lock, Resource, meta
from kahuna.store.transaction import Transaction
from kowa.v2 import project_pb2, region_pb2, subnet_pb2, vnet_pb2


class Subnet(Resource, table=True):
    vnet_id: str = Field(foreign_key="vnet.id", index=True)
    name: str
    cidr: str

    lock_by_reference = Lock.EXCLUSIVE
    reaches = ("vnet.region.Zone(region).Kaktus(zone).agent", "vnet.region.Kiwi(region).members.agent")


class Subnets(Kind[subnet_pb2.Subnet], table=Subnet):
    """Checks that no range overlaps another of its routing domain: a project in a region, or the region itself."""

    def before_create(self, tx: Transaction, resource: subnet_pb2.Subnet) -> None:
        """Locks the routing domain's owner, so that two overlapping ranges can't be taken at once."""
        vnet = tx.one(vnet_pb2.Vnet, resource.vnet)
        owner: project_pb2.Project | region_pb2.Region
        if vnet.project:
            owner, domain = tx.lock(project_pb2.Project, vnet.project), "of project {} in the region"
        else:
            owner, domain = tx.lock(region_pb2.Region, vnet.region), "in region {}"
        others = [
            (subnet.name, subnet.cidr)
            for other in tx.each(vnet_pb2.Vnet, "region", vnet.region)
            if other.project == vnet.project
            for subnet in tx.each(subnet_pb2.Subnet, "vnet", other.meta.id)
            if not meta(subnet).HasField("delete_time")
        ]
        resource.gateway = check_subnet(resource.cidr, resource.gateway, others, domain.format(owner.name))
