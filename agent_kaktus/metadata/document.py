"""The metadata of an instance as a tree of names, and which instance asks. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote

from agent_kaktus.compute.desired import Instance
from agent_kaktus.context import Project, Region, Zone
from agent_kaktus.network.adapter import Adapter, Attachment, attachment
from agent_kaktus.network.vnet import Subnet
from kowa.runtime.desired import Desired, MissingReference

CUSTOM = "metadata"  # the directory of what users give
_MAX_TARGET_BYTES = 4096  # of a custom name as it is asked for
# cloud-init takes `1=name` for an SSH key's; whoever asks for a name as it stands ends at ? and #, and loses a %.
_MISREAD = re.compile(r"[\s\d_+-]*=|.*[%?#]")

Tree: TypeAlias = "Mapping[str, str | Tree]"


def asker(desired: Desired, vnet: str, address: str, mac: str) -> Instance | None:
    """The instance that has an adapter with this very network and hardware address on a vnet."""
    found = {
        user.id: user
        for adapter in desired.of(Adapter).values()
        if not adapter.gone and (str(adapter.address), adapter.mac) == (address, mac)
        if _vnet(desired, adapter) == vnet
        for user in desired.users(adapter.id)
        if isinstance(user, Instance)
    }
    return next(iter(found.values())) if len(found) == 1 else None


def tree(desired: Desired, instance: Instance) -> Tree:
    """As EC2 lays it out. What is empty or unknown is left out."""
    plugged = _attachments(desired, instance)
    first = plugged[0].adapter if plugged else None
    keys = {str(number): {"openssh-key": key} for number, key in enumerate(instance.ssh_keys)}
    adapters = {each.adapter.mac: _adapter(instance, each, number) for number, each in enumerate(plugged)}
    return _filled(
        {
            "hostname": instance.name,
            "instance-id": instance.id,
            "local-hostname": instance.name,
            "local-ipv4": str(first.address) if first else "",
            "mac": first.mac if first else "",
            CUSTOM: dict(instance.metadata),
            "network": {"interfaces": {"macs": adapters}} if adapters else {},
            "placement": _placement(desired),
            "project": _name(desired.of(Project).get(instance.project)),
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


def _placement(desired: Desired) -> Tree:
    """Where the host stands: an agent is told of no other zone."""
    zone = next(iter(desired.of(Zone).values()), None)
    region = desired.of(Region).get(zone.region) if zone else None
    return _filled({"availability-zone": _name(zone), "region": _name(region)})


def _adapter(instance: Instance, plugged: Attachment, number: int) -> Tree:
    return {
        "device-number": str(number),
        "interface-id": plugged.adapter.id,
        "local-hostname": instance.name,
        "local-ipv4s": str(plugged.adapter.address),
        "mac": plugged.adapter.mac,
        "subnet-id": plugged.subnet.id,
        "subnet-ipv4-cidr-block": str(plugged.subnet.network),
    }


def _attachments(desired: Desired, instance: Instance) -> list[Attachment]:
    """Of its adapters those that lead somewhere."""
    plugged = []
    for id_ in instance.adapters:
        try:
            plugged.append(attachment(desired, desired.get(Adapter, id_, "adapter")))
        except MissingReference:
            continue
    return plugged


def _vnet(desired: Desired, adapter: Adapter) -> str:
    subnet = desired.of(Subnet).get(adapter.subnet)
    return subnet.vnet if subnet else ""


def _name(found: Project | Region | Zone | None) -> str:
    return found.name if found else ""


def _filled(values: Tree) -> Tree:
    return {name: value for name, value in values.items() if value}
