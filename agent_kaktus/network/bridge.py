"""Bridges and other network devices of this host, through netlink."""

import errno
import socket
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyroute2 import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP

from agent_kaktus import names
from agent_kaktus.actual import Link
from agent_kaktus.errors import StepFailed
from agent_kaktus.network.netlink import index_of, kind_of, open_netlink
from kowa.runtime.tasks import in_thread

# Without them a guest reaches, over a bridge that has no address, what the host has on any other device.
_STRICT = {"rp_filter": "1", "arp_ignore": "1"}


class Bridges:
    """The bridges of the network namespace that the agent runs in."""

    @in_thread
    def look(self) -> dict[str, Link]:
        """All devices, by name. A bridge of ours that is not strict is shown as not up: it is set anew."""
        with open_netlink() as netlink:
            links = list(netlink.get_links())
            addresses = list(netlink.get_addr(family=socket.AF_INET))
        ports = Counter(link.get_attr("IFLA_MASTER") for link in links)
        known = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        held: dict[int, set[str]] = {}
        for address in addresses:
            held.setdefault(address["index"], set()).add(f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}")
        return {
            link.get_attr("IFLA_IFNAME"): Link(
                name=link.get_attr("IFLA_IFNAME"),
                index=link["index"],
                is_bridge=kind_of(link) == "bridge",
                is_up=bool(link["flags"] & IFF_UP) and _is_strict(link.get_attr("IFLA_IFNAME")),
                ports=ports[link["index"]],
                bridge=known.get(link.get_attr("IFLA_MASTER"), ""),
                addresses=frozenset(held.get(link["index"], ())),
                mac=link.get_attr("IFLA_ADDRESS") or "",
            )
            for link in links
        }

    @in_thread
    def create(self, name: str, mac: str) -> None:
        with open_netlink() as netlink:
            try:
                netlink.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0)
            except NetlinkError as why:
                if why.code != errno.EEXIST:
                    raise
            _be_strict(name)
            netlink.link("set", index=index_of(netlink, name), state="up")

    @in_thread
    def change(self, name: str, add: Iterable[str], drop: Iterable[str]) -> None:
        """Sets it up and gives and takes addresses; others that it has are left."""
        with open_netlink() as netlink:
            index = index_of(netlink, name)
            _be_strict(name)
            netlink.link("set", index=index, state="up")
            for verb, addresses in (("add", add), ("del", drop)):
                for address in addresses:
                    _set_address(netlink, verb, index, address)

    @in_thread
    def remove(self, name: str) -> None:
        """Only one that is named by us, and that nothing is plugged into."""
        if not names.is_bridge(name):
            raise StepFailed(f"{name} is no bridge of ours")
        with open_netlink() as netlink:
            found = netlink.link_lookup(ifname=name)
            if not found:
                return
            if any(link.get_attr("IFLA_MASTER") == found[0] for link in netlink.get_links()):
                raise StepFailed(f"{name} has devices on it")
            netlink.link("del", index=found[0])


def _be_strict(name: str) -> None:
    """Against what does not belong on it; where net.ipv4.conf.all has more, the kernel takes that."""
    try:
        for setting, value in _STRICT.items():
            _setting(name, setting).write_text(value)
    except OSError as why:
        raise StepFailed(f"{name}: {why}") from why


def _is_strict(name: str) -> bool:
    """Whether it is, if it is a bridge of ours and still there."""
    if not names.is_bridge(name):
        return True
    try:
        return all(_setting(name, setting).read_text().strip() == value for setting, value in _STRICT.items())
    except OSError:
        return True


def _setting(name: str, setting: str) -> Path:
    return Path("/proc/sys/net/ipv4/conf", name, setting)


def _set_address(netlink: Any, verb: str, index: int, address: str) -> None:
    host, length = address.split("/")
    try:
        netlink.addr(verb, index=index, address=host, prefixlen=int(length))
    except NetlinkError as why:
        if why.code not in (errno.EEXIST, errno.ENODEV, errno.EADDRNOTAVAIL):
            raise
