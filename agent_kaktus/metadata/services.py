"""The metadata services of this host: one for each vnet that its instances are on.

A service has its address in a network namespace of its own, joined to the vnet's bridge by a veth pair. The namespace
has no name: it exists while the agent has it open, and the kernel removes it with its devices when the agent ends.
"""

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import TextIO, TypeVar

from agent_kaktus.metadata.server import Server
from agent_kaktus.network.bridge import index_of, open_netlink
from agent_kaktus.network.nftables import MetadataFilter
from agent_kaktus.network.vnet import Vnet
from kowa.reserved import METADATA_ADDRESS, metadata_mac, metadata_port_mac
from kowa.runtime.errors import StepFailed
from kowa.runtime.tasks import in_thread

T = TypeVar("T")

PORT = 80
INSIDE = "eth0"  # the service's end of the veth pair
_BACKLOG = 64
_CLONE_NEWNET = 0x40000000
_LINK_SCOPE = 253
_STATIC, _STICKY = 0x42, 0x44  # NUD_NOARP | NUD_REACHABLE, NTF_MASTER | NTF_STICKY
_SETTINGS = {
    "ipv4/ip_forward": "0",
    "ipv4/ip_default_ttl": "1",
    # Drop packets whose senders can't be reached: two vnets may share a bridge.
    "ipv4/conf/all/rp_filter": "1",
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Service:
    """The parts of one service."""

    namespace: int  # its descriptor: once that and all sockets in it are closed, the kernel removes it
    port: int  # the index of the veth pair's end that is attached to the bridge
    neighbours: TextIO
    listening: asyncio.Server
    networks: frozenset[IPv4Network] = frozenset()


class MetadataServices:
    """The services by vnet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._services: dict[str, Service] = {}
        self._lock = asyncio.Lock()

    def observe(self) -> dict[str, frozenset[IPv4Network]]:
        return {id_: service.networks for id_, service in self._services.items()}

    async def serve(self, vnet: Vnet, networks: frozenset[IPv4Network], metadata_filter: MetadataFilter) -> None:
        """Puts the filter first. An existing service stays; if its veth pair is missing, a new one replaces it."""
        async with self._lock:
            await metadata_filter.put()
            service = self._services.get(vnet.id)
            if service is None or not await _is_joined(vnet.metadata_port, service.port):
                self._drop(vnet.id)
                service = self._services[vnet.id] = await self._open(vnet)
            await _set_routes(service.namespace, networks - service.networks, service.networks - networks)
            service.networks = networks
            await _plug(vnet)

    async def remove(self, vnet: Vnet, metadata_filter: MetadataFilter) -> None:
        async with self._lock:
            await in_thread(_remove_port)(vnet.metadata_port)
            self._drop(vnet.id)
            if not self._services:
                await metadata_filter.remove()

    async def remove_unused_filter(self, metadata_filter: MetadataFilter) -> None:
        """Removes a filter that an earlier agent has left, unless a service has come into being meanwhile."""
        async with self._lock:
            if not self._services:
                await metadata_filter.remove()

    async def close(self) -> None:
        async with self._lock:
            for id_ in list(self._services):
                self._drop(id_)
            await self._server.close()

    async def _open(self, vnet: Vnet) -> Service:
        open_namespace = partial(os.open, "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        namespace = await in_thread(_run_inside)(None, open_namespace)
        try:
            port = await _create_port(vnet, namespace)
            listener, neighbours = await in_thread(_run_inside)(namespace, _set_up)
            listening = await self._server.listen(listener, vnet.id, partial(_hardware_address, neighbours))
        except BaseException:
            os.close(namespace)
            raise
        return Service(namespace, port, neighbours, listening)

    def _drop(self, id_: str) -> None:
        if service := self._services.pop(id_, None):
            service.listening.close()
            service.neighbours.close()
            os.close(service.namespace)


@in_thread
def _create_port(vnet: Vnet, namespace: int) -> int:
    """Creates a veth pair from the namespace to the host, not yet attached. Returns the index of the host's end."""
    _remove_port(vnet.metadata_port)
    with open_netlink() as netlink:
        mtu = netlink.get_links(index_of(netlink, vnet.bridge))[0].get_attr("IFLA_MTU")
        # The higher address of the outer end never becomes that of a bridge, nor does its MTU lower a bridge's.
        inner = {"ifname": INSIDE, "net_ns_fd": namespace, "address": metadata_mac(vnet.id), "mtu": mtu}
        outer = {"ifname": vnet.metadata_port, "address": metadata_port_mac(vnet.id), "mtu": mtu}
        netlink.link("add", kind="veth", peer=inner, **outer)
        return index_of(netlink, vnet.metadata_port)


@in_thread
def _plug(vnet: Vnet) -> None:
    """Attaches the port to the bridge, which forwards to it only packets for the service's hardware address."""
    with open_netlink() as netlink:
        index = index_of(netlink, vnet.metadata_port)
        netlink.link("set", index=index, master=index_of(netlink, vnet.bridge), state="up")
        netlink.brport("set", index=index, learning=0, unicast_flood=0, mcast_flood=0)
        netlink.fdb("replace", ifindex=index, lladdr=metadata_mac(vnet.id), state=_STATIC, flags=_STICKY)


def _remove_port(port: str) -> None:
    """Removes a veth pair by the name of the host's end."""
    with open_netlink() as netlink:
        for index in netlink.link_lookup(ifname=port):
            if netlink.get_links(index)[0].get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") != "veth":
                raise StepFailed(f"{port} exists and is not ours")
            netlink.link("del", index=index)


@in_thread
def _is_joined(port: str, index: int) -> bool:
    """Whether the device that was created under this index still exists."""
    with open_netlink() as netlink:
        return index in netlink.link_lookup(ifname=port)


def _set_up() -> tuple[socket.socket, TextIO]:
    """Run in the namespace: sets address and kernel settings. Returns the listening socket and the neighbour table."""
    for name, value in _SETTINGS.items():
        setting = Path("/proc/sys/net", name)
        if setting.exists():
            setting.write_text(value)
    with open_netlink() as netlink:
        index = index_of(netlink, INSIDE)
        netlink.addr("add", index=index, address=METADATA_ADDRESS, prefixlen=32)
        netlink.link("set", index=index, state="up")
    listener = socket.create_server((METADATA_ADDRESS, PORT), backlog=_BACKLOG)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    return listener, Path("/proc/thread-self/net/arp").open(encoding="ascii")


@in_thread
def _set_routes(namespace: int, add: Iterable[IPv4Network], drop: Iterable[IPv4Network]) -> None:
    """Adds and removes routes to networks on the service's link."""

    def change_routes() -> None:
        with open_netlink() as netlink:
            index = index_of(netlink, INSIDE)
            for verb, networks in (("replace", add), ("del", drop)):
                for network in networks:
                    netlink.route(verb, dst=str(network), oif=index, scope=_LINK_SCOPE)

    _run_inside(namespace, change_routes)


def _hardware_address(neighbours: TextIO, address: str) -> str:
    """The hardware address of a network address; empty if there is none, or the service has been removed."""
    if neighbours.closed:
        return ""
    neighbours.seek(0)
    for line in neighbours.readlines()[1:]:
        found, _, flags, mac, *_ = line.split()
        if found == address and int(flags, 16):
            return mac
    return ""


def _run_inside(namespace: int | None, work: Callable[[], T]) -> T:
    """Runs a function in a network namespace; None: in a new one. Sockets opened there stay in that namespace.

    It runs in a thread of its own, since a thread that has changed its namespace can't be used for anything else.
    """

    def enter() -> T:
        failed = _libc.unshare(_CLONE_NEWNET) if namespace is None else _libc.setns(namespace, _CLONE_NEWNET)
        if failed:
            raise StepFailed(f"a network namespace can't be entered: {os.strerror(ctypes.get_errno())}")
        return work()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(enter).result()
