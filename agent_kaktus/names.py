"""Names on the host. They are derived from ids, so that renaming a resource changes none of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

DIGITS = 12  # of an id; with a prefix of two letters they fit the 15 characters of a network device's name


def domain(instance: str) -> str:
    return f"kowa-{instance}"


def tap(adapter: str) -> str:
    """The name of an adapter's tap. Libvirt would ignore one that starts with `vnet`, `vif` or `macvtap`."""
    return "kt" + _digits(adapter)


def bridge(vnet: str) -> str:
    return "kb" + _digits(vnet)


def is_bridge(name: str) -> bool:
    return re.fullmatch(rf"kb[0-9a-f]{{{DIGITS}}}", name) is not None


def metadata_port(vnet: str) -> str:
    """The device that attaches a vnet's metadata service to its bridge."""
    return "km" + _digits(vnet)


def is_metadata_port(name: str) -> bool:
    return re.fullmatch(rf"km[0-9a-f]{{{DIGITS}}}", name) is not None


def filter_table(kaktus: str) -> str:
    """The name of an agent's nftables tables."""
    return "kaktus_" + _digits(kaktus)


def is_id(text: str) -> bool:
    """Whether a text is an id in its canonical form."""
    try:
        return text == str(UUID(text))
    except ValueError:
        return False


def named_by_id(directory: Path) -> Iterator[Path]:
    """The subdirectories that are named by an id; none if the directory does not exist."""
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if is_id(path.name) and _may_be_directory(path))


def _digits(id_: str) -> str:
    return id_.replace("-", "")[:DIGITS]


def _may_be_directory(path: Path) -> bool:
    """Whether a path is a directory. True if it can't be examined: reading it then fails with the reason."""
    try:
        return path.is_dir()
    except OSError:
        return True
