"""What bridges and guards need. Pure."""

from agent_kaktus.desired import Card, Desired, Host, Missing, Port, Range, Segment
from agent_kaktus.metadata import plan as metadata
from agent_kaktus.network import guard
from agent_kaktus.steps import MakeBridge, RemoveBridge, SetBridge, Unguard
from agent_kaktus.view import AS_WANTED, GONE, Verdict, View
from kowa.reserved import METADATA_ADDRESS, bridge_mac, metadata_mac


def segment(view: View, wanted: Segment) -> Verdict:
    if wanted.gone:
        return _gone(view, wanted)
    serve = metadata.serve(view, wanted)
    link = view.actual.links.get(wanted.bridge)
    if wanted.interface:  # somebody else's: never changed
        return Verdict(serve)
    if link is None:
        return Verdict((MakeBridge(wanted, _bridge_mac(view, wanted)),)) if _is_needed(view, wanted) else AS_WANTED
    if not link.is_bridge:
        return Verdict(fails=f"{link.name} is there and no bridge; rename or remove it")
    add = tuple(sorted(_held(view, wanted, gone=False) - link.addresses))
    drop = tuple(sorted((_held(view, wanted, gone=True) - _held(view, wanted, gone=False)) & link.addresses))
    is_set = link.is_up and not add and not drop
    return Verdict((*(() if is_set else (SetBridge(wanted, add, drop),)), *serve))


def _gone(view: View, wanted: Segment) -> Verdict:
    link = view.actual.links.get(wanted.bridge)
    unserve = metadata.unserve(view, wanted)
    if wanted.interface or link is None:
        return Verdict(unserve) if unserve else GONE
    if not link.is_bridge:
        return Verdict(waits=f"{link.name}, which is there and no bridge of ours")
    ports = link.ports - metadata.is_plugged(view, wanted)
    if ports:
        return Verdict(waits=f"{ports} devices on its bridge {link.name}")
    return Verdict((*unserve, RemoveBridge(wanted)))


def range_(view: View, wanted: Range) -> Verdict:
    home = view.desired.segments.get(wanted.segment)
    if not wanted.gone or home is None or home.interface:
        return GONE if wanted.gone else AS_WANTED
    link = view.actual.links.get(home.bridge)
    held = _held(view, home, gone=True) - _held(view, home, gone=False)
    if link is not None and wanted.held in held & link.addresses:
        return Verdict(waits=f"its gateway address, which {link.name} has")
    return GONE


def card(view: View, wanted: Card) -> Verdict:
    if not wanted.gone:
        return AS_WANTED
    if holder := view.actual.holder(wanted.tap):
        return Verdict(waits=f"domain {holder.name}, whose card it is")
    if wanted.tap in view.actual.links:
        return Verdict(waits=f"its tap {wanted.tap}")
    return Verdict((Unguard((wanted.tap,)),)) if wanted.tap in view.actual.guards else GONE


def host(view: View, wanted: Host) -> Verdict:
    """Rules of taps that are gone go too, once nobody knows the card; of one that is known, they go with it.

    So does the wall around services when there are none.
    """
    if wanted.gone:
        return GONE
    kept = {card.tap for card in view.desired.cards.values()}
    left = tuple(sorted(view.actual.guards.keys() - view.actual.links.keys() - kept))
    return Verdict((*((Unguard(left),) if left else ()), *metadata.raze(view)))


def why_no_bridge(view: View, wanted: Segment) -> str:
    link = view.actual.links.get(wanted.bridge)
    if link is not None and link.is_bridge:
        return ""
    return f"vnet {wanted.name}: no bridge {wanted.bridge}"


def why_not_plugged(view: View, port: Port) -> str:
    """Why an adapter would take from this host, or from a metadata service, what is theirs; empty if it would not.

    Kahuna admits no such adapter; records from before it looked may ask for one.
    """
    card, bridge = port.card, port.segment.bridge
    vnets = [segment for segment in view.desired.segments.values() if segment.bridge == bridge]
    owners = [f"the metadata service's of vnet {vnet.name}" for vnet in vnets if card.mac == metadata_mac(vnet.id)]
    owners += [f"that of {link.name} on this host" for link in view.actual.links.values() if link.mac == card.mac]
    if owners:
        return f"adapter {card.name}: its hardware address {card.mac} is {owners[0]}; replace it by another adapter"
    if card.address == port.range.gateway or str(card.address) == METADATA_ADDRESS:
        return f"adapter {card.name}: its address {card.address} is kept for the vnet; replace it by another adapter"
    return ""


def is_guarded(view: View, wanted: Card) -> bool:
    link = view.actual.links.get(wanted.tap)
    return link is not None and view.actual.guards.get(wanted.tap) == guard.seal(wanted, link.index)


def _is_needed(view: View, wanted: Segment) -> bool:
    held = view.site.hold_gateway and _held(view, wanted, gone=False)
    return bool(held) or any(wanted in _segments(view.desired, id_) for id_ in view.desired.machines)


def _segments(desired: Desired, machine: str) -> set[Segment]:
    wanted = desired.machines[machine]
    if wanted.gone:
        return set()
    try:
        return {port.segment for port in desired.outfit(wanted).ports}
    except Missing:
        return set()


def _held(view: View, wanted: Segment, *, gone: bool) -> set[str]:
    """The gateway addresses that the bridge shall have, or shall lose."""
    if not view.site.hold_gateway:
        return set()
    ranges = (range_ for range_ in view.desired.ranges.values() if range_.segment == wanted.id)
    return {range_.held for range_ in ranges if range_.gateway and range_.gone == gone}


def _bridge_mac(view: View, wanted: Segment) -> str:
    """The bridge's own, or it would change with the taps on it."""
    return bridge_mac(view.desired.host.id if view.desired.host else "", wanted.id)
