"""Metadata services of vnets: one stands on a bridge for as long as an instance of this host is to be plugged in."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from agent_kaktus import names
from agent_kaktus.metadata import filter as metadata_filter
from agent_kaktus.network.subnet import used_networks
from agent_kaktus.network.vnet import Vnet, Vnets, is_metadata_plugged
from agent_kaktus.plan import ObjectStep, Step, Verdict, View

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost


@dataclass(frozen=True, slots=True)
class ServeMetadata(ObjectStep[Vnet]):
    """Starts a vnet's service and the filter around it; of what is there already only the missing parts are made."""

    verb = "serve metadata on"
    networks: frozenset[IPv4Network]

    async def do(self, host: "LocalHost") -> None:
        await host.metadata_services.serve(self.wanted, self.networks, host.metadata_filter)


class RemoveMetadata(ObjectStep[Vnet]):
    verb = "remove metadata from"

    async def do(self, host: "LocalHost") -> None:
        await host.metadata_services.remove(self.wanted, host.metadata_filter)


@dataclass(frozen=True, slots=True)
class RemoveMetadataFilter(Step):
    """Removes the rules around metadata services when there is none."""

    async def do(self, host: "LocalHost") -> None:
        await host.metadata_filter.remove()

    def __str__(self) -> str:
        return "remove metadata filter"


class VnetsWithMetadata(Vnets):
    """Vnets whose instances find a metadata service."""

    def plan(self, view: View, wanted: Vnet) -> Verdict:
        verdict = Vnets.plan(self, view, wanted)
        if verdict.waits or verdict.fails:
            return verdict
        if wanted.gone:
            steps = _remove(view, wanted)
            return Verdict((*steps, *verdict.steps)) if steps else verdict
        return replace(verdict, steps=(*verdict.steps, *_serve(view, wanted)))

    def strangers(self, view: View) -> Iterable[str]:
        known = {vnet.metadata_port for vnet in view.desired.of(Vnet).values()}
        ports = [name for name in view.actual.links if names.is_metadata_port(name) and name not in known]
        return [*Vnets.strangers(self, view), *(f"metadata port {name}" for name in ports)]


def remove_stale_filter(view: View) -> tuple[Step, ...]:
    """The filter goes with the last service; here what of it an agent left that did not get that far."""
    if not view.actual.metadata_filter or view.actual.metadata_services:
        return ()
    is_needed = any(
        vnet.metadata_port in view.actual.links or (not vnet.gone and used_networks(view.desired, vnet.id))
        for vnet in view.desired.of(Vnet).values()
    )
    return () if is_needed else (RemoveMetadataFilter(),)


def _serve(view: View, wanted: Vnet) -> tuple[Step, ...]:
    networks = used_networks(view.desired, wanted.id)
    if not networks:
        return _remove(view, wanted)
    link = view.actual.links.get(wanted.bridge)
    if link is None or not link.is_bridge or _is_whole(view, wanted, networks):
        return ()
    return (ServeMetadata(wanted, networks),)


def _remove(view: View, wanted: Vnet) -> tuple[Step, ...]:
    """An agent that ended has left no service, but perhaps its port, which goes with it."""
    is_there = wanted.id in view.actual.metadata_services or wanted.metadata_port in view.actual.links
    return (RemoveMetadata(wanted),) if is_there else ()


def _is_whole(view: View, wanted: Vnet, networks: frozenset[IPv4Network]) -> bool:
    is_served = view.actual.metadata_services.get(wanted.id) == networks
    is_filtered = view.actual.metadata_filter == metadata_filter.FINGERPRINT
    return (
        is_served
        and is_filtered
        and is_metadata_plugged(view, wanted)
        and view.actual.links[wanted.metadata_port].is_up
    )
