"""Vnets and their subnets: bridges on this host, with gateway addresses and metadata services.

The agent creates a bridge unless the vnet names an existing one. A metadata service is attached to it while an instance
of this host has an adapter on the vnet.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from agent_kaktus import names
from agent_kaktus.kind import Kind, View
from agent_kaktus.network.nftables import METADATA_FINGERPRINT
from kowa import formats
from kowa.reserved import bridge_mac
from kowa.runtime.desired import Desired, DesiredObject, Identity, parse_address, parse_network
from kowa.runtime.verdict import AS_WANTED, GONE, Step, Verdict
from kowa.v2 import subnet_pb2, vnet_pb2


@dataclass(frozen=True, slots=True)
class Vnet(DesiredObject):
    interface: str

    @property
    def bridge(self) -> str:
        return self.interface or names.bridge(self.id)

    @property
    def metadata_port(self) -> str:
        return names.metadata_port(self.id)


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
        """The gateway's address with its prefix length, as set on a bridge."""
        return f"{self.gateway}/{self.network.prefixlen}" if self.gateway else ""


class Vnets(Kind[Vnet]):
    message, value = vnet_pb2.Vnet, Vnet

    def parse(self, identity: Identity, sent: vnet_pb2.Vnet) -> Vnet:
        if sent.interface and not formats.INTERFACE.fullmatch(sent.interface):
            raise ValueError(f"interface {sent.interface!r} can't be a device")
        return Vnet(*identity, sent.interface)

    def plan(self, view: View, wanted: Vnet) -> Verdict:
        bridge = _plan_bridge_gone(view, wanted) if wanted.gone else _plan_bridge(view, wanted)
        if bridge.waits or bridge.fails:
            return bridge
        if not wanted.gone and (networks := used_networks(view.desired, wanted.id)):
            return replace(bridge, steps=bridge.steps + _serve_metadata(view, wanted, networks))
        # A service ends with the agent; its port may exist a little longer.
        if wanted.id in view.actual.metadata_services or wanted.metadata_port in view.actual.links:
            remove = Step(
                "remove metadata from",
                wanted.name,
                lambda host: host.metadata_services.remove(wanted, host.metadata_filter),
            )
            # A bridge is removed after its service; one that stays is set first, since removing the service may fail.
            return Verdict((remove, *bridge.steps) if wanted.gone else (*bridge.steps, remove))
        return bridge

    def strangers(self, view: View) -> Iterable[str]:
        vnets, links = view.desired.of(Vnet), view.actual.links
        known = {names.bridge(id_) for id_ in vnets} | {vnet.metadata_port for vnet in vnets.values()}
        left = links.keys() - known
        ports = [f"metadata port {name}" for name in left if names.is_metadata_port(name)]
        return ports + [f"bridge {name}" for name in left if names.is_bridge(name)]


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
        _, dropped = gateways(view, wanted.vnet)
        if link is not None and wanted.gateway_on_bridge in dropped & link.addresses:
            return Verdict(waits=f"its gateway address, which {link.name} has")
        return GONE


def used_networks(desired: Desired, vnet: str) -> frozenset[IPv4Network]:
    """All networks of a vnet if an instance of this host has an adapter in one of them; otherwise none."""
    subnets = [user for user in desired.users(vnet) if isinstance(user, Subnet)]
    adapters = [adapter for subnet in subnets for adapter in desired.users(subnet.id)]
    is_used = any(desired.users(adapter.id) for adapter in adapters)
    return frozenset(subnet.network for subnet in subnets) if is_used else frozenset()


def gateways(view: View, vnet: str) -> tuple[set[str], set[str]]:
    """The gateway addresses that the bridge of a vnet is to have, and those that are to be removed from it."""
    if not view.config.hold_gateway:
        return set(), set()
    subnets = [user for user in view.desired.referring(vnet) if isinstance(user, Subnet) and user.gateway]
    needed = {subnet.gateway_on_bridge for subnet in subnets if not subnet.gone}
    return needed, {subnet.gateway_on_bridge for subnet in subnets if subnet.gone} - needed


def why_no_bridge(view: View, vnet: Vnet) -> str:
    """What to wait for until an adapter can be attached to a vnet; empty if that is possible now."""
    link = view.actual.links.get(vnet.bridge)
    return "" if link is not None and link.is_bridge else f"vnet {vnet.name}: no bridge {vnet.bridge}"


def remove_stale_metadata_filter(view: View) -> tuple[Step, ...]:
    """Removes a metadata filter without services, if an agent ended before it removed the last one."""
    if not view.actual.metadata_filter or view.actual.metadata_services:
        return ()
    is_needed = any(
        vnet.metadata_port in view.actual.links or (not vnet.gone and used_networks(view.desired, vnet.id))
        for vnet in view.desired.of(Vnet).values()
    )
    return (
        ()
        if is_needed
        else (
            Step(
                "remove metadata filter",
                "",
                lambda host: host.metadata_services.remove_unused_filter(host.metadata_filter),
            ),
        )
    )


def _plan_bridge(view: View, wanted: Vnet) -> Verdict:
    if wanted.interface:  # not ours: never changed
        return AS_WANTED
    link = view.actual.links.get(wanted.bridge)
    needed, dropped = gateways(view, wanted.id)
    if link is None:
        if not needed and not used_networks(view.desired, wanted.id):
            return AS_WANTED
        # Without a hardware address of its own, the bridge would take one of its taps', which changes with them.
        mac = bridge_mac(view.desired.node.id if view.desired.node else "", wanted.id)
        return Verdict((Step("create bridge", wanted.name, lambda host: host.bridges.create(wanted.bridge, mac)),))
    if not link.is_bridge:
        return Verdict(fails=f"{link.name} is there and no bridge; rename or remove it")
    add, drop = sorted(needed - link.addresses), sorted(dropped & link.addresses)
    if link.is_up and not add and not drop:
        return AS_WANTED
    changes = [f"+{address}" for address in add] + [f"-{address}" for address in drop] or ["up"]
    name = " ".join([wanted.name, *changes])
    return Verdict((Step("set bridge", name, lambda host: host.bridges.change(wanted.bridge, add, drop)),))


def _plan_bridge_gone(view: View, wanted: Vnet) -> Verdict:
    link = view.actual.links.get(wanted.bridge)
    if wanted.interface or link is None:
        return GONE
    if not link.is_bridge:
        return Verdict(waits=f"{link.name}, which is there and no bridge of ours")
    if ports := link.ports - _is_metadata_plugged(view, wanted):
        return Verdict(waits=f"{ports} devices on its bridge {link.name}")
    return Verdict((Step("remove bridge", wanted.name, lambda host: host.bridges.remove(wanted.bridge)),))


def _serve_metadata(view: View, wanted: Vnet, networks: frozenset[IPv4Network]) -> tuple[Step, ...]:
    """The step that serves metadata on a vnet; none if its service is complete, or the vnet has no bridge yet."""
    link, actual = view.actual.links.get(wanted.bridge), view.actual
    is_complete = (
        actual.metadata_services.get(wanted.id) == networks
        and actual.metadata_filter == METADATA_FINGERPRINT
        and _is_metadata_plugged(view, wanted)
        and actual.links[wanted.metadata_port].is_up
    )
    if link is None or not link.is_bridge or is_complete:
        return ()
    return (
        Step(
            "serve metadata on",
            wanted.name,
            lambda host: host.metadata_services.serve(wanted, networks, host.metadata_filter),
        ),
    )


def _is_metadata_plugged(view: View, vnet: Vnet) -> bool:
    port = view.actual.links.get(vnet.metadata_port)
    return port is not None and port.bridge == vnet.bridge
