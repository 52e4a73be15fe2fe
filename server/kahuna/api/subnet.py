"""Subnets."""

from kahuna.api.service import StandardMethods
from kahuna.domain.addresses import check_subnet
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa.v2 import subnet_pb2, vnet_pb2


class SubnetService(StandardMethods):
    """Ranges of addresses; within a region none overlaps another."""

    kind = "Subnet"

    def admit(self, tx: Transaction, resource: subnet_pb2.Subnet) -> None:
        """Locks the region, so that two overlapping ranges can't be taken at once."""
        vnet = tx.find("Vnet", resource.vnet)
        assert isinstance(vnet, vnet_pb2.Vnet)
        tx.row("Region", vnet.region)
        others = [
            (subnet.name, subnet.cidr)
            for sibling in tx.referring("Vnet", "region", vnet.region)
            for subnet in tx.referring("Subnet", "vnet", meta(sibling).id)
            if isinstance(subnet, subnet_pb2.Subnet) and not subnet.meta.HasField("delete_time")
        ]
        resource.gateway = check_subnet(resource.cidr, resource.gateway, others)
