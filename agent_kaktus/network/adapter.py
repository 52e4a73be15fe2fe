"""Adapters: the network interfaces of instances, and the filters on their taps."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from agent_kaktus import names
from agent_kaktus.kind import Kind, View
from agent_kaktus.network.nftables import tap_fingerprint
from agent_kaktus.network.vnet import Subnet, Vnet
from kowa import formats
from kowa.reserved import METADATA_ADDRESS, metadata_mac
from kowa.runtime.desired import Desired, DesiredObject, Identity, parse_address
from kowa.runtime.errors import StepFailed
from kowa.runtime.verdict import AS_WANTED, GONE, Step, Verdict
from kowa.v2 import adapter_pb2

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost


@dataclass(frozen=True, slots=True)
class Adapter(DesiredObject):
    subnet: str
    mac: str
    address: IPv4Address

    @property
    def references(self) -> tuple[str, ...]:
        return (self.subnet,)

    @property
    def tap(self) -> str:
        return names.tap(self.id)


@dataclass(frozen=True, slots=True)
class Attachment:
    """An adapter with its subnet and vnet."""

    adapter: Adapter
    subnet: Subnet
    vnet: Vnet


class Adapters(Kind[Adapter]):
    message, value = adapter_pb2.Adapter, Adapter

    def parse(self, identity: Identity, sent: adapter_pb2.Adapter) -> Adapter:
        mac = sent.mac.lower()
        if not formats.MAC.fullmatch(mac):
            raise ValueError(f"mac {sent.mac!r} can't be an adapter's")
        return Adapter(*identity, sent.subnet, mac, parse_address("address", sent.address))

    def plan(self, view: View, wanted: Adapter) -> Verdict:
        if not wanted.gone:
            return AS_WANTED
        if user := view.actual.tap_user(wanted.tap):
            return Verdict(waits=f"domain {user.name}, whose adapter it is")
        if wanted.tap in view.actual.links:
            return Verdict(waits=f"its tap {wanted.tap}")
        return Verdict((_remove_filters([wanted.tap]),)) if wanted.tap in view.actual.tap_filters else GONE


async def put_filters(host: "LocalHost", adapters: Iterable[Adapter]) -> None:
    """Puts filters on the adapters' taps. Raises StepFailed, also when an adapter has no tap."""
    links = await host.bridges.observe()
    for adapter in adapters:
        if adapter.tap not in links:
            raise StepFailed(f"tap {adapter.tap} does not exist")
        await host.tap_filters.put(adapter, links[adapter.tap].index)


def is_filtered(view: View, adapter: Adapter) -> bool:
    """Whether an adapter has a tap, and that its filter."""
    link = view.actual.links.get(adapter.tap)
    return link is not None and view.actual.tap_filters.get(adapter.tap) == tap_fingerprint(adapter, link.index)


def attachment_of(desired: Desired, adapter: Adapter) -> Attachment:
    """Raises MissingReference."""
    subnet = desired.get(Subnet, adapter.subnet, "subnet")
    return Attachment(adapter, subnet, desired.get(Vnet, subnet.vnet, "vnet"))


def why_address_conflicts(view: View, attachment: Attachment) -> str:
    """The reason why an adapter can't be used: its address is this host's or a metadata service's. Empty if it can be.

    Kahuna rejects such an adapter, but older releases did not.
    """
    adapter, bridge = attachment.adapter, attachment.vnet.bridge
    vnets = [vnet for vnet in view.desired.of(Vnet).values() if vnet.bridge == bridge]
    owners = [f"the metadata service's of vnet {vnet.name}" for vnet in vnets if adapter.mac == metadata_mac(vnet.id)]
    owners += [f"that of {link.name} on this host" for link in view.actual.links.values() if link.mac == adapter.mac]
    if owners:
        reason = f"its hardware address {adapter.mac} is {owners[0]}"
    elif adapter.address == attachment.subnet.gateway or str(adapter.address) == METADATA_ADDRESS:
        reason = f"its address {adapter.address} is kept for the vnet"
    else:
        return ""
    return f"adapter {adapter.name}: {reason}; replace it by another adapter"


def remove_stale_tap_filters(view: View) -> tuple[Step, ...]:
    """Steps that remove filters of missing taps whose adapters are not in the slice; others go with their adapter."""
    known = {adapter.tap for adapter in view.desired.of(Adapter).values()}
    stale = sorted(view.actual.tap_filters.keys() - view.actual.links.keys() - known)
    return (_remove_filters(stale),) if stale else ()


def _remove_filters(taps: list[str]) -> Step:
    async def remove(host: "LocalHost") -> None:
        """Keeps the filters of taps that have come into being since they were observed."""
        links = await host.bridges.observe()
        await host.tap_filters.remove([tap for tap in taps if tap not in links])

    return Step("remove filter of", " ".join(taps), remove)
