"""What a machine may know of itself, and which machine asks. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote

from agent_kaktus.desired import Card, Desired, Machine, Missing, Port

CUSTOM = "metadata"  # the directory of what users give
_MAX_TARGET_BYTES = 4096  # of a custom name as it is asked for
# cloud-init takes `1=name` for an SSH key's; whoever asks for a name as it stands ends at ? and #, and loses a %.
_MISREAD = re.compile(r"[\s\d_+-]*=|.*[%?#]")

Tree: TypeAlias = "Mapping[str, str | Tree]"


def asker(desired: Desired, segment: str, address: str, mac: str) -> Machine | None:
    """The machine that has a card with this very network and hardware address on a vnet."""
    cards = {
        card.id
        for card in desired.cards.values()
        if not card.gone and str(card.address) == address and card.mac == mac and _segment(desired, card) == segment
    }
    machines = desired.machines.values()
    found = [machine for machine in machines if not machine.gone and not cards.isdisjoint(machine.cards)]
    return found[0] if len(found) == 1 else None


def tree(desired: Desired, machine: Machine) -> Tree:
    """As EC2 lays it out. What is empty or unknown is left out."""
    ports = _ports(desired, machine)
    first = ports[0].card if ports else None
    keys = {str(number): {"openssh-key": key} for number, key in enumerate(machine.ssh_keys)}
    cards = {port.card.mac: _card(machine, port, number) for number, port in enumerate(ports)}
    return _filled(
        {
            "hostname": machine.name,
            "instance-id": machine.id,
            "local-hostname": machine.name,
            "local-ipv4": str(first.address) if first else "",
            "mac": first.mac if first else "",
            CUSTOM: dict(machine.metadata),
            "network": {"interfaces": {"macs": cards}} if cards else {},
            "placement": _placement(desired, machine),
            "project": _name(desired, machine.project),
            "public-keys": keys,
        }
    )


def find(tree_: Tree, path: Sequence[str]) -> "str | Tree | None":
    """What is at a path. Custom names may hold slashes, and are found as they are listed, too: readers quote that."""
    if path[:1] == [CUSTOM] and len(path) > 1:
        custom, asked = tree_.get(CUSTOM), "/".join(path[1:])
        if not isinstance(custom, Mapping) or not asked:
            return None
        return (
            custom[asked]
            if asked in custom
            else next((custom[name] for name in custom if _listed(name) == asked), None)
        )
    found: str | Tree | None = tree_
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def listing(tree_: Tree, path: Sequence[str]) -> str:
    """The names in a directory, a line each; those of directories end with a slash, those of keys say which.

    Custom names that can't be asked for, since that would take too long a line, are left to the whole document.
    """
    if list(path) == ["public-keys"]:
        return "\n".join(f"{number}=key-{number}" for number in tree_)
    if list(path) == [CUSTOM]:
        listed = (_listed(name) for name in tree_ if name)
        return "\n".join(name for name in listed if len(quote(name)) <= _MAX_TARGET_BYTES)
    return "\n".join(name + ("" if isinstance(value, str) else "/") for name, value in tree_.items())


def _listed(name: str) -> str:
    """A custom name on a line of its own: as it is, if those who take the line for a path come back to it."""
    is_a_path = not {"", ".", ".."} & set(name.split("/"))
    if is_a_path and name.isprintable() and name == name.strip() and not _MISREAD.match(name):
        return name
    return quote(name, safe="").replace(".", "%2E")


def _placement(desired: Desired, machine: Machine) -> Tree:
    zone = desired.passive.get(machine.zone)
    region = _name(desired, zone.region) if zone else ""
    return _filled({"availability-zone": zone.name if zone else "", "region": region})


def _card(machine: Machine, port: Port, number: int) -> Tree:
    return {
        "device-number": str(number),
        "interface-id": port.card.id,
        "local-hostname": machine.name,
        "local-ipv4s": str(port.card.address),
        "mac": port.card.mac,
        "subnet-id": port.range.id,
        "subnet-ipv4-cidr-block": str(port.range.network),
    }


def _ports(desired: Desired, machine: Machine) -> list[Port]:
    """Of its cards those that lead somewhere."""
    ports = []
    for id_ in machine.cards:
        card = desired.cards.get(id_)
        try:
            ports += [desired.port(card)] if card and not card.gone else []
        except Missing:
            continue
    return ports


def _segment(desired: Desired, card: Card) -> str:
    range_ = desired.ranges.get(card.range)
    return range_.segment if range_ else ""


def _name(desired: Desired, id_: str) -> str:
    found = desired.passive.get(id_)
    return found.name if found else ""


def _filled(values: Tree) -> Tree:
    return {name: value for name, value in values.items() if value}
