"""Names on the host: ids name directories and files; devices, domains and tables have names that come from ids.

So a resource that is renamed keeps its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

DIGITS = 12  # of an id; with two letters in front it fits the 15 characters of a network device


def domain(instance: str) -> str:
    return f"kowa-{instance}"


def tap(adapter: str) -> str:
    """Libvirt takes no name for a tap that starts with `vnet`, `vif` or `macvtap`."""
    return "kt" + _digits(adapter)


def bridge(vnet: str) -> str:
    return "kb" + _digits(vnet)


def is_bridge(name: str) -> bool:
    return re.fullmatch(rf"kb[0-9a-f]{{{DIGITS}}}", name) is not None


def metadata_port(vnet: str) -> str:
    """Where a vnet's metadata service is plugged into its bridge."""
    return "km" + _digits(vnet)


def is_metadata_port(name: str) -> bool:
    return re.fullmatch(rf"km[0-9a-f]{{{DIGITS}}}", name) is not None


def filter_table(kaktus: str) -> str:
    """The nftables tables of one agent."""
    return "kaktus_" + _digits(kaktus)


def is_id(text: str) -> bool:
    """Whether it is an id, written as ids are."""
    try:
        return text == str(UUID(text))
    except ValueError:
        return False


def named_by_id(directory: Path) -> Iterator[Path]:
    """The directories in a directory that an id names. Of a directory that isn't there, none."""
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if is_id(path.name) and _may_be_directory(path))


def _digits(id_: str) -> str:
    return id_.replace("-", "")[:DIGITS]


def _may_be_directory(path: Path) -> bool:
    """What can't be examined counts as one: reading it fails with the reason."""
    try:
        return path.is_dir()
    except OSError:
        return True
