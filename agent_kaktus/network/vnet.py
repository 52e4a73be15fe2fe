"""Vnets: each is a bridge on this host, made by the agent unless the vnet names one that exists."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_kaktus import names
from agent_kaktus.network.subnet import dropped_gateways, held_gateways, used_networks
from agent_kaktus.plan import AS_WANTED, GONE, Kind, ObjectStep, Verdict, View
from kowa import formats
from kowa.reserved import bridge_mac
from kowa.runtime.desired import DesiredObject, Identity
from kowa.v2 import vnet_pb2

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost


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
class CreateBridge(ObjectStep[Vnet]):
    verb = "create bridge"
    mac: str

    async def do(self, host: "LocalHost") -> None:
        await host.bridges.create(self.wanted.bridge, self.mac)


@dataclass(frozen=True, slots=True)
class SetBridge(ObjectStep[Vnet]):
    add: tuple[str, ...] = ()  # addresses
    drop: tuple[str, ...] = ()

    async def do(self, host: "LocalHost") -> None:
        await host.bridges.change(self.wanted.bridge, self.add, self.drop)

    def __str__(self) -> str:
        changes = [f"+{address}" for address in self.add] + [f"-{address}" for address in self.drop]
        return " ".join([f"set bridge {self.wanted.name}", *(changes or ["up"])])


class RemoveBridge(ObjectStep[Vnet]):
    verb = "remove bridge"

    async def do(self, host: "LocalHost") -> None:
        await host.bridges.remove(self.wanted.bridge)


class Vnets(Kind[Vnet]):
    message, value = vnet_pb2.Vnet, Vnet

    def parse(self, identity: Identity, sent: vnet_pb2.Vnet) -> Vnet:
        if sent.interface and not formats.INTERFACE.fullmatch(sent.interface):
            raise ValueError(f"interface {sent.interface!r} can't be a device")
        return Vnet(*identity, sent.interface)

    def plan(self, view: View, wanted: Vnet) -> Verdict:
        if wanted.gone:
            return _plan_gone(view, wanted)
        if wanted.interface:  # somebody else's: never changed
            return AS_WANTED
        link = view.actual.links.get(wanted.bridge)
        if link is None:
            return (
                Verdict((CreateBridge(wanted, _bridge_mac(view, wanted)),)) if _is_needed(view, wanted) else AS_WANTED
            )
        if not link.is_bridge:
            return Verdict(fails=f"{link.name} is there and no bridge; rename or remove it")
        add = tuple(sorted(held_gateways(view, wanted.id) - link.addresses))
        drop = tuple(sorted(dropped_gateways(view, wanted.id) & link.addresses))
        return AS_WANTED if link.is_up and not add and not drop else Verdict((SetBridge(wanted, add, drop),))

    def strangers(self, view: View) -> Iterable[str]:
        known = {names.bridge(id_) for id_ in view.desired.of(Vnet)}
        return [f"bridge {name}" for name in view.actual.links if names.is_bridge(name) and name not in known]


def why_no_bridge(view: View, vnet: Vnet) -> str:
    """Why nothing can be plugged into a vnet, in words that follow "waits for"; empty if it can."""
    link = view.actual.links.get(vnet.bridge)
    return "" if link is not None and link.is_bridge else f"vnet {vnet.name}: no bridge {vnet.bridge}"


def is_metadata_plugged(view: View, vnet: Vnet) -> bool:
    """Whether the port of its metadata service is on its bridge."""
    port = view.actual.links.get(vnet.metadata_port)
    return port is not None and port.bridge == vnet.bridge


def _plan_gone(view: View, wanted: Vnet) -> Verdict:
    link = view.actual.links.get(wanted.bridge)
    if wanted.interface or link is None:
        return GONE
    if not link.is_bridge:
        return Verdict(waits=f"{link.name}, which is there and no bridge of ours")
    if ports := link.ports - is_metadata_plugged(view, wanted):
        return Verdict(waits=f"{ports} devices on its bridge {link.name}")
    return Verdict((RemoveBridge(wanted),))


def _is_needed(view: View, wanted: Vnet) -> bool:
    return bool(held_gateways(view, wanted.id) or used_networks(view.desired, wanted.id))


def _bridge_mac(view: View, wanted: Vnet) -> str:
    """The bridge's own, or it would change with the taps on it."""
    return bridge_mac(view.desired.node.id if view.desired.node else "", wanted.id)
