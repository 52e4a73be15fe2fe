"""Names of devices, domains and tables on the host. They come from ids, so that a renamed resource keeps its own."""

import re

DIGITS = 12  # of an id; with two letters in front it fits the 15 characters of a network device


def domain(instance: str) -> str:
    return f"kowa-{instance}"


def tap(adapter: str) -> str:
    """Libvirt takes no name for a tap that starts with `vnet`, `vif` or `macvtap`."""
    return "kt" + _digits(adapter)


def bridge(vnet: str) -> str:
    return "kb" + _digits(vnet)


def is_bridge(name: str) -> bool:
    """Whether it is named as we name bridges."""
    return re.fullmatch(rf"kb[0-9a-f]{{{DIGITS}}}", name) is not None


def metadata_port(vnet: str) -> str:
    """Where a vnet's metadata service is plugged into its bridge."""
    return "km" + _digits(vnet)


def is_metadata_port(name: str) -> bool:
    """Whether it is named as we name the ports of metadata services."""
    return re.fullmatch(rf"km[0-9a-f]{{{DIGITS}}}", name) is not None


def filter_table(kaktus: str) -> str:
    """The nftables tables of one agent."""
    return "kaktus_" + _digits(kaktus)


def _digits(id_: str) -> str:
    return id_.replace("-", "")[:DIGITS]
