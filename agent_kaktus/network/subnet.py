"""Subnets: ranges of addresses on a vnet."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from agent_kaktus import names
from agent_kaktus.plan import AS_WANTED, GONE, Kind, Verdict, View
from kowa.runtime.desired import Desired, DesiredObject, Identity, parse_address, parse_network
from kowa.v2 import subnet_pb2


@dataclass(frozen=True, slots=True)
class Subnet(DesiredObject):
    vnet: str
    network: IPv4Network
    gateway: IPv4Address | None
    dns: tuple[str, ...]

    @property
    def references(self) -> tuple[str, ...]:
        return (self.vnet,)

    @property
    def gateway_on_bridge(self) -> str:
        """The gateway's address as a bridge has it."""
        return f"{self.gateway}/{self.network.prefixlen}" if self.gateway else ""


class Subnets(Kind[Subnet]):
    message, value = subnet_pb2.Subnet, Subnet

    def parse(self, identity: Identity, sent: subnet_pb2.Subnet) -> Subnet:
        gateway = parse_address("gateway", sent.gateway) if sent.gateway else None
        dns = tuple(str(parse_address("dns", server)) for server in sent.dns)
        return Subnet(*identity, sent.vnet, parse_network(sent.cidr), gateway, dns)

    def plan(self, view: View, wanted: Subnet) -> Verdict:
        if not wanted.gone:
            return AS_WANTED
        link = view.actual.links.get(names.bridge(wanted.vnet))
        if link is not None and wanted.gateway_on_bridge in dropped_gateways(view, wanted.vnet) & link.addresses:
            return Verdict(waits=f"its gateway address, which {link.name} has")
        return GONE


def used_networks(desired: Desired, vnet: str) -> frozenset[IPv4Network]:
    """All networks of a vnet, if something on this host has an adapter in one of them; otherwise none."""
    subnets = [user for user in desired.users(vnet) if isinstance(user, Subnet)]
    adapters = [adapter for subnet in subnets for adapter in desired.users(subnet.id)]
    is_used = any(desired.users(adapter.id) for adapter in adapters)
    return frozenset(subnet.network for subnet in subnets) if is_used else frozenset()


def held_gateways(view: View, vnet: str) -> set[str]:
    """The gateway addresses that the bridge of a vnet shall have."""
    return _gateways(view, vnet, gone=False)


def dropped_gateways(view: View, vnet: str) -> set[str]:
    """The gateway addresses that the bridge of a vnet shall lose."""
    return _gateways(view, vnet, gone=True) - held_gateways(view, vnet)


def _gateways(view: View, vnet: str, *, gone: bool) -> set[str]:
    if not view.config.hold_gateway:
        return set()
    subnets = [user for user in view.desired.referring(vnet) if isinstance(user, Subnet)]
    return {subnet.gateway_on_bridge for subnet in subnets if subnet.gateway and subnet.gone == gone}
