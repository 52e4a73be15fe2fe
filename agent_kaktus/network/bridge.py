"""Bridges, through netlink."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_kaktus import names
from agent_kaktus.actual import Link
from agent_kaktus.failures import StepFailed
from agent_kaktus.network.netlink import IPRoute, NetlinkError

_IPV4 = 2
_UP = 1
_THERE = 17  # EEXIST
_NOT_THERE = (19, 99)  # ENODEV, EADDRNOTAVAIL
# Without them a guest reaches, over a bridge that has no address, what the host has on any other device.
_STRICT = {"rp_filter": "1", "arp_ignore": "1"}


def look() -> dict[str, Link]:
    """All devices of this network namespace, by name. A bridge of ours that is not strict is not up: it is set anew."""
    with open_netlink() as netlink:
        links = list(netlink.get_links())
        addresses = list(netlink.get_addr(family=_IPV4))
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
            is_up=bool(link["flags"] & _UP) and _is_strict(link.get_attr("IFLA_IFNAME")),
            ports=ports[link["index"]],
            bridge=known.get(link.get_attr("IFLA_MASTER"), ""),
            addresses=frozenset(held.get(link["index"], ())),
            mac=link.get_attr("IFLA_ADDRESS") or "",
        )
        for link in links
    }


def make(name: str, mac: str) -> None:
    with open_netlink() as netlink:
        try:
            netlink.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0)
        except NetlinkError as why:
            if why.code != _THERE:
                raise
        _be_strict(name)
        netlink.link("set", index=index_of(netlink, name), state="up")


def change(name: str, add: Iterable[str], drop: Iterable[str]) -> None:
    """Sets it up and gives and takes addresses; others that it has are left."""
    with open_netlink() as netlink:
        index = index_of(netlink, name)
        _be_strict(name)
        netlink.link("set", index=index, state="up")
        for verb, addresses in (("add", add), ("del", drop)):
            for address in addresses:
                _set_address(netlink, verb, index, address)


def remove(name: str) -> None:
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


@contextmanager
def open_netlink() -> Iterator[IPRoute]:
    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as why:
        raise StepFailed(f"netlink: {why}") from why


def index_of(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise StepFailed(f"{name} is not there")
    return int(found[0])


def kind_of(link: object) -> str:
    info = link.get_attr("IFLA_LINKINFO")  # type: ignore[attr-defined]
    return str(info.get_attr("IFLA_INFO_KIND")) if info else ""


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


def _set_address(netlink: IPRoute, verb: str, index: int, address: str) -> None:
    host, length = address.split("/")
    try:
        netlink.addr(verb, index=index, address=host, prefixlen=int(length))
    except NetlinkError as why:
        if why.code != _THERE and why.code not in _NOT_THERE:
            raise
