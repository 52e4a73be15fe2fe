"""The metadata of an instance as a tree of names, and the instance that an address belongs to. Pure."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias
from urllib.parse import quote

from agent_kaktus.compute.desired import Instance
from agent_kaktus.context import Project, Region, Zone
from agent_kaktus.network.adapter import Adapter, Attachment, attachment_of
from agent_kaktus.network.vnet import Subnet
from kowa.runtime.desired import Desired, DesiredObject, MissingReference

CUSTOM = "metadata"  # the directory of the users' own metadata
_MAX_QUOTED_NAME_BYTES = 4096  # of a custom name in a request
# cloud-init takes `1=name` for an SSH key's; a name that is requested unquoted ends at ? and #, and loses a %.
_MISREAD = re.compile(r"[\s\d_+-]*=|.*[%?#]")

Tree: TypeAlias = "Mapping[str, str | Tree]"


def instance_at(desired: Desired, vnet: str, address: str, mac: str) -> Instance | None:
    """The one instance that has an adapter with this network and this hardware address on a vnet."""
    found = {
        user.id: user
        for adapter in desired.of(Adapter).values()
        if not adapter.gone and (str(adapter.address), adapter.mac) == (address, mac)
        if (subnet := desired.of(Subnet).get(adapter.subnet)) and subnet.vnet == vnet
        for user in desired.users(adapter.id)
        if isinstance(user, Instance)
    }
    return next(iter(found.values())) if len(found) == 1 else None


def tree(desired: Desired, instance: Instance) -> Tree:
    """The metadata in EC2's layout. Empty and unknown values are left out."""
    attachments = _attachments(desired, instance)
    first = attachments[0].adapter if attachments else None
    keys = {str(number): {"openssh-key": key} for number, key in enumerate(instance.ssh_keys)}
    adapters = {each.adapter.mac: _adapter(instance, each, number) for number, each in enumerate(attachments)}
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
    """The value or directory at a path. Custom names may contain slashes, and are also found by their listed form."""
    custom, requested = tree_.get(CUSTOM), "/".join(path[1:])
    if path[:1] == [CUSTOM] and len(path) > 1:
        if not isinstance(custom, Mapping) or not requested:
            return None
        by_listed = {_listed(name): value for name, value in custom.items()}
        return custom.get(requested, by_listed.get(requested))
    found: str | Tree | None = tree_
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def listing(tree_: Tree, path: Sequence[str]) -> str:
    """The names in a directory, a line each; those of directories end with a slash, those of SSH keys have a number.

    Custom names too long for a request are left out; the whole document has them.
    """
    if list(path) == ["public-keys"]:
        return "\n".join(f"{number}=key-{number}" for number in tree_)
    if list(path) == [CUSTOM]:
        listed = (_listed(name) for name in tree_ if name)
        return "\n".join(name for name in listed if len(quote(name)) <= _MAX_QUOTED_NAME_BYTES)
    return "\n".join(name + ("" if isinstance(value, str) else "/") for name, value in tree_.items())


def _listed(name: str) -> str:
    """A custom name as a line of a listing: unchanged if a request for that line finds it, quoted otherwise."""
    is_a_path = not {"", ".", ".."} & set(name.split("/"))
    if is_a_path and name.isprintable() and name == name.strip() and not _MISREAD.match(name):
        return name
    return quote(name, safe="").replace(".", "%2E")


def _placement(desired: Desired) -> Tree:
    """The host's zone and region, the only ones in an agent's slice."""
    zone, region = (next(iter(desired.of(kind).values()), None) for kind in (Zone, Region))
    return _filled({"availability-zone": _name(zone), "region": _name(region)})


def _adapter(instance: Instance, attachment: Attachment, number: int) -> Tree:
    return {
        "device-number": str(number),
        "interface-id": attachment.adapter.id,
        "local-hostname": instance.name,
        "local-ipv4s": str(attachment.adapter.address),
        "mac": attachment.adapter.mac,
        "subnet-id": attachment.subnet.id,
        "subnet-ipv4-cidr-block": str(attachment.subnet.network),
    }


def _attachments(desired: Desired, instance: Instance) -> list[Attachment]:
    """The instance's adapters whose subnet and vnet are in the slice."""
    attachments = []
    for id_ in instance.adapters:
        with suppress(MissingReference):
            attachments.append(attachment_of(desired, desired.get(Adapter, id_, "adapter")))
    return attachments


def _name(found: DesiredObject | None) -> str:
    return found.name if found else ""


def _filled(values: Tree) -> Tree:
    return {name: value for name, value in values.items() if value}
