"""Bridges and other network devices of this host, through netlink."""

import errno
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP

from agent_kaktus import names
from agent_kaktus.actual import Link
from kowa.runtime.errors import StepFailed
from kowa.runtime.tasks import in_thread

# By default a guest reaches all addresses of the host over any bridge, even one without an address.
_STRICT = {"rp_filter": "1", "arp_ignore": "1"}


@contextmanager
def open_netlink() -> Iterator[Any]:
    """Opens an IPRoute. Turns netlink errors in the block into StepFailed."""
    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        raise StepFailed(f"netlink: {error}") from error


def index_of(netlink: Any, name: str) -> int:
    """The index of a device. Raises StepFailed when there is none."""
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise StepFailed(f"{name} does not exist")
    return int(found[0])


class Bridges:
    """The bridges of the network namespace that the agent runs in."""

    @in_thread
    def observe(self) -> dict[str, Link]:
        """All devices, by name. A bridge of ours with lax settings counts as not up, and is set up again."""
        with open_netlink() as netlink:
            links = {link.get_attr("IFLA_IFNAME"): link for link in netlink.get_links()}
            addresses: dict[int, set[str]] = defaultdict(set)
            for found in netlink.get_addr(family=socket.AF_INET):
                addresses[found["index"]].add(f"{found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}")
        ports = Counter(link.get_attr("IFLA_MASTER") for link in links.values())
        by_index = {link["index"]: name for name, link in links.items()}
        return {
            name: Link(
                name=name,
                index=link["index"],
                is_bridge=link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge",
                is_up=bool(link["flags"] & IFF_UP) and _is_strict(name),
                ports=ports[link["index"]],
                bridge=by_index.get(link.get_attr("IFLA_MASTER"), ""),
                addresses=frozenset(addresses[link["index"]]),
                mac=link.get_attr("IFLA_ADDRESS") or "",
            )
            for name, link in links.items()
        }

    @in_thread
    def create(self, name: str, mac: str) -> None:
        with open_netlink() as netlink:
            with _ignored(errno.EEXIST):
                netlink.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0)
            _make_strict(name)
            netlink.link("set", index=index_of(netlink, name), state="up")

    @in_thread
    def change(self, name: str, add: Iterable[str], drop: Iterable[str]) -> None:
        """Sets a bridge up, adds and drops addresses, and leaves its other addresses."""
        with open_netlink() as netlink:
            index = index_of(netlink, name)
            _make_strict(name)
            netlink.link("set", index=index, state="up")
            for verb, addresses in (("add", add), ("del", drop)):
                for address, length in (each.split("/") for each in addresses):
                    with _ignored(errno.EEXIST, errno.ENODEV, errno.EADDRNOTAVAIL):
                        netlink.addr(verb, index=index, address=address, prefixlen=int(length))

    @in_thread
    def remove(self, name: str) -> None:
        """Removes a bridge. Raises StepFailed unless it has a name of ours, and no devices on it."""
        if not names.is_bridge(name):
            raise StepFailed(f"{name} is not a bridge of ours")
        with open_netlink() as netlink:
            for index in netlink.link_lookup(ifname=name):
                if any(link.get_attr("IFLA_MASTER") == index for link in netlink.get_links()):
                    raise StepFailed(f"{name} has devices on it")
                netlink.link("del", index=index)


@contextmanager
def _ignored(*codes: int) -> Iterator[None]:
    """Ignores netlink errors with these codes: the change had been made already."""
    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise


def _make_strict(name: str) -> None:
    """Writes the strict settings. A stricter net.ipv4.conf.all takes precedence in the kernel."""
    try:
        for setting, value in _STRICT.items():
            _setting(name, setting).write_text(value)
    except OSError as error:
        raise StepFailed(f"{name}: {error}") from error


def _is_strict(name: str) -> bool:
    """Whether a bridge has the strict settings. True also for other devices, and for one that no longer exists."""
    if not names.is_bridge(name):
        return True
    try:
        return all(_setting(name, setting).read_text().strip() == value for setting, value in _STRICT.items())
    except OSError:
        return True


def _setting(name: str, setting: str) -> Path:
    return Path("/proc/sys/net/ipv4/conf", name, setting)
