"""What is wanted of this node: the kinds that the agent knows, parsed into values."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from kowa.runtime.desired import DesiredObject, Identity, Kind, Kinds, parse_address, parse_network
from kowa.v2 import kiwi_pb2, region_pb2, subnet_pb2, vnet_pb2


class Kiwi(DesiredObject):
    """This node."""


class Region(DesiredObject):
    """A region; needs no steps on this node."""


class Vnet(DesiredObject):
    """A network of the region, or of a project in it."""


@dataclass(frozen=True, slots=True)
class Subnet(DesiredObject):
    """One that is gone has no addresses any more, and is not asked for them."""

    vnet: str
    network: IPv4Network | None
    gateway: IPv4Address | None
    dns: tuple[IPv4Address, ...]

    @property
    def references(self) -> tuple[str, ...]:
        return (self.vnet,)


class Regions(Kind[Region]):
    message, value = region_pb2.Region, Region

    def parse(self, identity: Identity, sent: region_pb2.Region) -> Region:
        return Region(*identity)


class Kiwis(Kind[Kiwi]):
    message, value, is_node = kiwi_pb2.Kiwi, Kiwi, True

    def parse(self, identity: Identity, sent: kiwi_pb2.Kiwi) -> Kiwi:
        return Kiwi(*identity)


class Vnets(Kind[Vnet]):
    message, value = vnet_pb2.Vnet, Vnet

    def parse(self, identity: Identity, sent: vnet_pb2.Vnet) -> Vnet:
        return Vnet(*identity)


class Subnets(Kind[Subnet]):
    message, value = subnet_pb2.Subnet, Subnet

    def parse(self, identity: Identity, sent: subnet_pb2.Subnet) -> Subnet:
        _, _, gone, _ = identity
        if gone:
            return Subnet(*identity, sent.vnet, None, None, ())
        network = parse_network(sent.cidr)
        gateway = parse_address("gateway", sent.gateway) if sent.gateway else None
        if gateway and (gateway not in network or gateway in (network.network_address, network.broadcast_address)):
            raise ValueError(f"gateway {gateway} is not a host address of {network}")
        dns = tuple(parse_address("dns", server) for server in sent.dns)
        return Subnet(*identity, sent.vnet, network, gateway, dns)


KINDS: Kinds[Kind[Any]] = Kinds(Regions(), Kiwis(), Vnets(), Subnets())
