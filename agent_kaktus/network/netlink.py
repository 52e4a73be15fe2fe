"""Netlink: how links, addresses and routes are asked for and changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from agent_kaktus.errors import StepFailed


@contextmanager
def open_netlink() -> Iterator[Any]:
    """An IPRoute. What it refuses inside is raised as StepFailed."""
    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as why:
        raise StepFailed(f"netlink: {why}") from why


def index_of(netlink: Any, name: str) -> int:
    """The index of a device. Raises StepFailed when there is none."""
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise StepFailed(f"{name} is not there")
    return int(found[0])


def kind_of(link: Any) -> str:
    """What a link is, such as `bridge`; empty for a plain device."""
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND")) if info else ""
