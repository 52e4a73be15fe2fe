"""What metadata services need. Pure."""

from ipaddress import IPv4Network

from agent_kaktus.desired import Desired, Segment
from agent_kaktus.network import wall
from agent_kaktus.steps import MakeService, RemoveService, RemoveWall, Step
from agent_kaktus.view import View


def serve(view: View, wanted: Segment) -> tuple[Step, ...]:
    """A service stands on a bridge for as long as a machine of this host is to be plugged into that."""
    networks = _networks(view.desired, wanted)
    if not networks:
        return unserve(view, wanted)
    link = view.actual.links.get(wanted.bridge)
    if link is None or not link.is_bridge or _is_whole(view, wanted, networks):
        return ()
    return (MakeService(wanted, networks),)


def unserve(view: View, wanted: Segment) -> tuple[Step, ...]:
    """An agent that ended has left no service, but perhaps its port, which goes with it."""
    is_there = wanted.id in view.actual.services or wanted.port in view.actual.links
    return (RemoveService(wanted),) if is_there else ()


def raze(view: View) -> tuple[Step, ...]:
    """The wall goes with the last service; here what of it an agent left that did not get that far."""
    if not view.actual.wall or view.actual.services:
        return ()
    is_needed = any(_needs_wall(view, segment) for segment in view.desired.segments.values())
    return () if is_needed else (RemoveWall(),)


def is_plugged(view: View, wanted: Segment) -> bool:
    port = view.actual.links.get(wanted.port)
    return port is not None and port.bridge == wanted.bridge


def _needs_wall(view: View, wanted: Segment) -> bool:
    return wanted.port in view.actual.links or (not wanted.gone and bool(_networks(view.desired, wanted)))


def _is_whole(view: View, wanted: Segment, networks: frozenset[IPv4Network]) -> bool:
    is_made = view.actual.services.get(wanted.id) == networks and view.actual.wall == wall.SEAL
    return is_made and is_plugged(view, wanted) and view.actual.links[wanted.port].is_up


def _networks(desired: Desired, wanted: Segment) -> frozenset[IPv4Network]:
    """Of a vnet's subnets all, if a machine has a card in one; otherwise none."""
    ranges = {
        range_.id: range_ for range_ in desired.ranges.values() if range_.segment == wanted.id and not range_.gone
    }
    cards = {card.id for card in desired.cards.values() if not card.gone and card.range in ranges}
    if all(machine.gone or cards.isdisjoint(machine.cards) for machine in desired.machines.values()):
        return frozenset()
    return frozenset(range_.network for range_ in ranges.values())
