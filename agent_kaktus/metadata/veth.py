"""The veth pair between a metadata service and its bridge, and the service's end of it."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import TextIO

from agent_kaktus.errors import StepFailed
from agent_kaktus.metadata.namespace import Namespace
from agent_kaktus.network.bridge import index_of, kind_of, open_netlink
from agent_kaktus.network.vnet import Vnet
from kowa.reserved import METADATA_ADDRESS, metadata_mac, metadata_port_mac

PORT = 80
INSIDE = "eth0"
_BACKLOG = 64
_LINK_SCOPE = 253
_STATIC, _STICKY = 0x42, 0x44  # NUD_NOARP | NUD_REACHABLE, NTF_MASTER | NTF_STICKY
_NEIGHBOURS = "/proc/thread-self/net/arp"
_SETTINGS = {
    "ipv4/ip_forward": "0",
    "ipv4/ip_default_ttl": "1",
    # Listen only to who could be answered: two vnets may share a bridge.
    "ipv4/conf/all/rp_filter": "1",
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
}


def create(vnet: Vnet, namespace: Namespace) -> int:
    """A new pair, one end in the namespace, the other beside the bridge and not yet plugged in. Returns its index."""
    remove(vnet.metadata_port)
    with open_netlink() as netlink:
        mtu = netlink.get_links(index_of(netlink, vnet.bridge))[0].get_attr("IFLA_MTU")
        # The higher address of the outer end never becomes that of a bridge, nor does its MTU lower a bridge's.
        inner = {"ifname": INSIDE, "net_ns_fd": namespace.descriptor, "address": metadata_mac(vnet.id), "mtu": mtu}
        outer = {"ifname": vnet.metadata_port, "address": metadata_port_mac(vnet.id), "mtu": mtu}
        netlink.link("add", kind="veth", peer=inner, **outer)
        return index_of(netlink, vnet.metadata_port)


def plug(vnet: Vnet) -> None:
    """Into the bridge, which always finds the service's address behind this port, and sends nothing else there."""
    with open_netlink() as netlink:
        index = index_of(netlink, vnet.metadata_port)
        netlink.link("set", index=index, master=index_of(netlink, vnet.bridge), state="up")
        netlink.brport("set", index=index, learning=0, unicast_flood=0, mcast_flood=0)
        netlink.fdb("replace", ifindex=index, lladdr=metadata_mac(vnet.id), state=_STATIC, flags=_STICKY)


def remove(port: str) -> None:
    """By the bridge's end; the other goes with it."""
    with open_netlink() as netlink:
        for index in netlink.link_lookup(ifname=port):
            if kind_of(netlink.get_links(index)[0]) != "veth":
                raise StepFailed(f"{port} is there and not ours")
            netlink.link("del", index=index)


def is_joined(port: str, index: int) -> bool:
    """Whether the device that was made is still there: the other end goes with it."""
    with open_netlink() as netlink:
        return index in netlink.link_lookup(ifname=port)


def set_up() -> tuple[socket.socket, TextIO]:
    """Run inside: address and settings. Returns where instances connect to, and the table of neighbours."""
    for name, value in _SETTINGS.items():
        setting = Path("/proc/sys/net", name)
        if setting.exists():
            setting.write_text(value)
    with open_netlink() as netlink:
        index = index_of(netlink, INSIDE)
        netlink.addr("add", index=index, address=METADATA_ADDRESS, prefixlen=32)
        netlink.link("set", index=index, state="up")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    listener.bind((METADATA_ADDRESS, PORT))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener, Path(_NEIGHBOURS).open(encoding="ascii")


def set_routes(add: Iterable[IPv4Network], drop: Iterable[IPv4Network]) -> None:
    """Run inside: which networks are on the link."""
    with open_netlink() as netlink:
        index = index_of(netlink, INSIDE)
        for network in add:
            netlink.route("replace", dst=str(network), oif=index, scope=_LINK_SCOPE)
        for network in drop:
            netlink.route("del", dst=str(network), oif=index, scope=_LINK_SCOPE)


def neighbour(table: TextIO, address: str) -> str:
    """The hardware address behind a network address; empty where none is known, or the service is no more."""
    if table.closed:
        return ""
    table.seek(0)
    for line in table.readlines()[1:]:
        found, _, flags, mac_, *_ = line.split()
        if found == address and int(flags, 16):
            return mac_
    return ""
