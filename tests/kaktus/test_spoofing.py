"""The filters on an adapter's tap, on a real device, against a guest that tries to spoof."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from agent_kaktus import names
from agent_kaktus.kinds import KINDS
from agent_kaktus.network.adapter import Adapter
from tests.waiting import until

from .slices import id_of, slice_with_network

pytestmark = pytest.mark.libvirt

BRIDGE, BRIDGE_MAC = names.bridge(id_of("vnet")), "02:00:00:00:00:b0"
OTHER_HOST_ADDRESS = "192.0.2.1"  # of the host, on another device than the bridge
CREATE_BRIDGE = f"""
import asyncio
from agent_kaktus.network.bridge import Bridges
asyncio.run(Bridges().create({BRIDGE!r}, {BRIDGE_MAC!r}))
asyncio.run(Bridges().create({BRIDGE!r}, {BRIDGE_MAC!r}))
"""
SEND_FRAMES = """
import socket, sys, time
device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
device.bind(("eth0", 0))
for frame in sys.argv[2:]:
    device.send(bytes.fromhex(frame))
end, is_received = time.monotonic() + 1, not sys.argv[1]
while not is_received and (left := end - time.monotonic()) > 0:
    device.settimeout(left)
    try:
        is_received = device.recv(2000).startswith(bytes.fromhex(sys.argv[1]))
    except TimeoutError:
        break
print("received" if is_received else "silence")
"""
SEND_UDP = """
import ast, socket, sys
for source, target in ast.literal_eval(sys.argv[1]):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.9.0.2", source))
        sender.sendto(b"", ("10.9.0.1", target))
"""
SET_UP_BRIDGE = f"""
import asyncio
from agent_kaktus.network.bridge import Bridges
found = asyncio.run(Bridges().observe())[{BRIDGE!r}]
asyncio.run(Bridges().change({BRIDGE!r}, (), ()))
print(found.is_up, asyncio.run(Bridges().observe())[{BRIDGE!r}].is_up)
"""
PUT_FILTERS = """
import asyncio, socket, sys
from ipaddress import IPv4Address
from agent_kaktus import names
from agent_kaktus.network.adapter import Adapter
from agent_kaktus.network.nftables import TapFilters
async def main():
    adapter = Adapter(sys.argv[1], 1, False, "nic", "", sys.argv[2], IPv4Address(sys.argv[3]))
    index = socket.if_nametoindex(adapter.tap)
    filters = TapFilters(names.filter_table("6e5a1936-6806-5eb2-ba17-0e0235a2a13b"))
    await filters.put(adapter, index)
    await filters.put(adapter, index)
    assert list(await filters.observe()) == [adapter.tap]
asyncio.run(main())
"""


def web_adapter() -> Adapter:
    slice_ = slice_with_network()
    slice_.adapter("nic", "10.9.0.2")
    return KINDS.parse(slice_.objects).of(Adapter)[id_of("nic")]


def succeeds(*command: str) -> bool:
    return output_of(*command) is not None


def output_of(*command: str) -> str | None:
    """Standard output, or None if the command fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
    return done.stdout if done.returncode == 0 else None


class Guest:
    """A namespace behind a device that is called as a tap would be, on a bridge in another namespace."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex[:8]
        self.host, self.inside = f"kh-{name}", f"kg-{name}"

    def build(self) -> None:
        for namespace in (self.host, self.inside):
            assert succeeds("ip", "netns", "add", namespace)
        self.on_host("ip link set lo up")
        self.on_host(f"ip addr add {OTHER_HOST_ADDRESS}/32 dev lo")
        self.run_agent_code(CREATE_BRIDGE)
        self.on_host(f"ip link add {web_adapter().tap} type veth peer name eth0 netns {self.inside}")
        self.on_host(f"ip link set {web_adapter().tap} master {BRIDGE} up")
        self.on_host(f"ip addr add 10.9.0.1/24 dev {BRIDGE}")
        self.set_addresses(web_adapter().mac, "10.9.0.2")
        put = [sys.executable, "-c", PUT_FILTERS, web_adapter().id, web_adapter().mac, str(web_adapter().address)]
        assert succeeds("ip", "netns", "exec", self.host, *put)

    def on_host(self, command: str) -> str:
        output = output_of("ip", "netns", "exec", self.host, *command.split())
        assert output is not None, command
        return output

    def run_agent_code(self, code: str) -> str:
        """Runs Python code on the host; returns its output."""
        output = output_of("ip", "netns", "exec", self.host, sys.executable, "-c", code)
        assert output is not None
        return output

    def set_addresses(self, mac: str, *addresses: str) -> None:
        """Sets hardware and network addresses, as root in a guest can."""
        inside = ["ip", "netns", "exec", self.inside, "ip"]
        for command in (
            "link set eth0 down",
            f"link set eth0 address {mac}",
            "addr flush dev eth0",
            "link set eth0 up",
        ):
            assert succeeds(*inside, *command.split())
        for address in addresses:
            assert succeeds(*inside, "addr", "add", f"{address}/24", "dev", "eth0", "nodad")
        self.on_host(f"ip neigh flush dev {BRIDGE}")

    def in_guest(self, command: str) -> None:
        assert succeeds("ip", "netns", "exec", self.inside, *command.split()), command

    def send_frames(self, *frames: str, until: str = "") -> bool:
        """Sends frames in hexadecimal digits; returns whether a frame with the prefix `until` is received."""
        return (
            output_of("ip", "netns", "exec", self.inside, sys.executable, "-c", SEND_FRAMES, until, *frames)
            == "received\n"
        )

    def resolves(self, address: str, source: str) -> bool:
        """Whether the host answers an ARP request for an address."""
        mine, header = web_adapter().mac.replace(":", ""), "0001080006040001"
        request = f"{'f' * 12}{mine}0806{header}{mine}{IPv4Address(source).packed.hex()}{'0' * 12}"
        answer = f"{mine}{BRIDGE_MAC.replace(':', '')}0806"
        return self.send_frames(f"{request}{IPv4Address(address).packed.hex()}", until=answer)

    def send_udp(self, *ports: tuple[int, int]) -> int:
        """Sends packets from a UDP port to one of the host. Returns how many of them the host has received."""
        before = self.count("Udp", "NoPorts")
        assert succeeds("ip", "netns", "exec", self.inside, sys.executable, "-c", SEND_UDP, repr(ports))
        assert self.reaches("10.9.0.1")  # earlier packets have arrived by now
        return self.count("Udp", "NoPorts") - before

    def count(self, group: str, name: str) -> int:
        """A counter of the host's kernel."""
        lines = [
            line.split()
            for line in self.on_host("cat /proc/net/snmp /proc/net/netstat").splitlines()
            if line.startswith(f"{group}:")
        ]
        return int(dict(zip(*lines, strict=True))[name])

    def reaches(self, address: str, source: str = "") -> bool:
        ping = ["ping", "-c", "1", "-W", "1", *(["-I", source] if source else []), address]
        return succeeds("ip", "netns", "exec", self.inside, *ping)

    def close(self) -> None:
        for namespace in (self.host, self.inside):
            succeeds("ip", "netns", "delete", namespace)


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    try:
        guest.build()
        yield guest
    finally:
        guest.close()


def test_packets_with_its_own_addresses_pass(guest: Guest) -> None:
    assert guest.reaches("10.9.0.1")


def test_packets_with_another_address_are_dropped(guest: Guest) -> None:
    guest.set_addresses(web_adapter().mac, "10.9.0.3")
    assert not guest.reaches("10.9.0.1")
    guest.set_addresses(web_adapter().mac, "10.9.0.2", "10.9.0.3")
    assert guest.reaches("10.9.0.1", source="10.9.0.2")
    assert not guest.reaches("10.9.0.1", source="10.9.0.3")


def test_packets_with_another_mac_are_dropped(guest: Guest) -> None:
    guest.set_addresses("02:00:00:00:00:99", "10.9.0.2")
    assert not guest.reaches("10.9.0.1")


def test_packets_of_a_dhcp_server_are_dropped(guest: Guest) -> None:
    assert guest.send_udp((67, 68), (1067, 68)) == 0
    assert guest.send_udp((67, 67), (68, 67), (68, 69)) == 3


def test_ipv6_is_dropped(guest: Guest) -> None:
    guest.on_host(f"ip addr add fd00::1/64 dev {BRIDGE} nodad")
    guest.set_addresses(web_adapter().mac, "10.9.0.2")
    assert succeeds("ip", "netns", "exec", guest.inside, "ip", "addr", "add", "fd00::2/64", "dev", "eth0", "nodad")
    assert not guest.reaches("fd00::1")


def test_a_host_without_an_address_on_the_bridge_is_not_reached(guest: Guest) -> None:
    guest.on_host(f"ip addr del 10.9.0.1/24 dev {BRIDGE}")
    guest.in_guest(f"ip route add {OTHER_HOST_ADDRESS}/32 dev eth0")
    guest.in_guest(f"ip neigh replace {OTHER_HOST_ADDRESS} lladdr {BRIDGE_MAC} dev eth0")
    echos, dropped = guest.count("Icmp", "InEchos"), guest.count("TcpExt", "IPReversePathFilter")
    guest.reaches(OTHER_HOST_ADDRESS)
    until(lambda: guest.count("TcpExt", "IPReversePathFilter") > dropped, what="the host has dropped it")
    assert guest.count("Icmp", "InEchos") == echos


def test_arp_does_not_reveal_other_addresses_of_the_host(guest: Guest) -> None:
    for source in ("10.9.0.2", "0.0.0.0"):  # noqa: S104 - as in requests before it has one
        assert guest.resolves("10.9.0.1", source)
        assert not guest.resolves(OTHER_HOST_ADDRESS, source)


def test_weakened_settings_of_a_bridge_are_restored(guest: Guest) -> None:
    for setting in ("rp_filter", "arp_ignore"):
        guest.on_host(f"sysctl -q net.ipv4.conf.{BRIDGE}.{setting}=0")
        assert guest.run_agent_code(SET_UP_BRIDGE) == "False True\n"
