"""What a guest can't do: the rules on an adapter's tap on a real device, with somebody behind it who tries."""

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
ELSEWHERE = "192.0.2.1"  # the host's, on another device than the bridge
MAKE = f"""
import asyncio
from agent_kaktus.network.bridge import Bridges
asyncio.run(Bridges().create({BRIDGE!r}, {BRIDGE_MAC!r}))
asyncio.run(Bridges().create({BRIDGE!r}, {BRIDGE_MAC!r}))
"""
SEND = """
import socket, sys, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))
for frame in sys.argv[2:]:
    wire.send(bytes.fromhex(frame))
end, is_heard = time.monotonic() + 1, not sys.argv[1]
while not is_heard and (left := end - time.monotonic()) > 0:
    wire.settimeout(left)
    try:
        is_heard = wire.recv(2000).startswith(bytes.fromhex(sys.argv[1]))
    except TimeoutError:
        break
print("heard" if is_heard else "silence")
"""
SAY = """
import ast, socket, sys
for source, target in ast.literal_eval(sys.argv[1]):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.bind(("10.9.0.2", source))
        mouth.sendto(b"", ("10.9.0.1", target))
"""
SET = f"""
import asyncio
from agent_kaktus.network.bridge import Bridges
found = asyncio.run(Bridges().observe())[{BRIDGE!r}]
asyncio.run(Bridges().change({BRIDGE!r}, (), ()))
print(found.is_up, asyncio.run(Bridges().observe())[{BRIDGE!r}].is_up)
"""
PUT = """
import asyncio, socket, sys
from ipaddress import IPv4Address
from agent_kaktus import names
from agent_kaktus.network.adapter import Adapter
from agent_kaktus.network.nftables import TapFilters
async def main():
    nic = Adapter(sys.argv[1], 1, False, "nic", "", sys.argv[2], IPv4Address(sys.argv[3]))
    index = socket.if_nametoindex(nic.tap)
    filters = TapFilters(names.filter_table("6e5a1936-6806-5eb2-ba17-0e0235a2a13b"))
    await filters.put(nic, index)
    await filters.put(nic, index)
    assert list(await filters.observe()) == [nic.tap]
asyncio.run(main())
"""


def nic() -> Adapter:
    slice_ = slice_with_network()
    slice_.adapter("nic", "10.9.0.2")
    return KINDS.parse(slice_.objects).of(Adapter)[id_of("nic")]


def run(*command: str) -> bool:
    return said(*command) is not None


def said(*command: str) -> str | None:
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
            assert run("ip", "netns", "add", namespace)
        self.on_host("ip link set lo up")
        self.on_host(f"ip addr add {ELSEWHERE}/32 dev lo")
        self.agent(MAKE)
        self.on_host(f"ip link add {nic().tap} type veth peer name eth0 netns {self.inside}")
        self.on_host(f"ip link set {nic().tap} master {BRIDGE} up")
        self.on_host(f"ip addr add 10.9.0.1/24 dev {BRIDGE}")
        self.be(nic().mac, "10.9.0.2")
        put = [sys.executable, "-c", PUT, nic().id, nic().mac, str(nic().address)]
        assert run("ip", "netns", "exec", self.host, *put)

    def on_host(self, command: str) -> str:
        told = said("ip", "netns", "exec", self.host, *command.split())
        assert told is not None, command
        return told

    def agent(self, does: str) -> str:
        """What it prints."""
        told = said("ip", "netns", "exec", self.host, sys.executable, "-c", does)
        assert told is not None
        return told

    def be(self, mac: str, *addresses: str) -> None:
        """Takes hardware and network addresses, as root in a guest can."""
        inside = ["ip", "netns", "exec", self.inside, "ip"]
        for command in (
            "link set eth0 down",
            f"link set eth0 address {mac}",
            "addr flush dev eth0",
            "link set eth0 up",
        ):
            assert run(*inside, *command.split())
        for address in addresses:
            assert run(*inside, "addr", "add", f"{address}/24", "dev", "eth0", "nodad")
        self.on_host(f"ip neigh flush dev {BRIDGE}")

    def in_it(self, command: str) -> None:
        assert run("ip", "netns", "exec", self.inside, *command.split()), command

    def sends(self, *frames: str, until: str = "") -> bool:
        """Frames as it likes, in hexadecimal digits; and whether one comes that begins like that."""
        return said("ip", "netns", "exec", self.inside, sys.executable, "-c", SEND, until, *frames) == "heard\n"

    def asks_who_has(self, address: str, source: str) -> bool:
        mine, whole = nic().mac.replace(":", ""), "0001080006040001"
        asked = f"{'f' * 12}{mine}0806{whole}{mine}{IPv4Address(source).packed.hex()}{'0' * 12}"
        answer = f"{mine}{BRIDGE_MAC.replace(':', '')}0806"
        return self.sends(f"{asked}{IPv4Address(address).packed.hex()}", until=answer)

    def says(self, *ports: tuple[int, int]) -> int:
        """From one UDP port of its own to another of the host's. How many of them the host has heard."""
        before = self.count("Udp", "NoPorts")
        assert run("ip", "netns", "exec", self.inside, sys.executable, "-c", SAY, repr(ports))
        assert self.reaches("10.9.0.1")  # what was said before has arrived by now
        return self.count("Udp", "NoPorts") - before

    def count(self, group: str, name: str) -> int:
        """What the host's kernel counts."""
        lines = [
            line.split()
            for line in self.on_host("cat /proc/net/snmp /proc/net/netstat").splitlines()
            if line.startswith(f"{group}:")
        ]
        return int(dict(zip(*lines, strict=True))[name])

    def reaches(self, address: str, source: str = "") -> bool:
        ping = ["ping", "-c", "1", "-W", "1", *(["-I", source] if source else []), address]
        return run("ip", "netns", "exec", self.inside, *ping)

    def close(self) -> None:
        for namespace in (self.host, self.inside):
            run("ip", "netns", "delete", namespace)


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    try:
        made.build()
        yield made
    finally:
        made.close()


def test_it_speaks_as_itself(guest: Guest) -> None:
    assert guest.reaches("10.9.0.1")


def test_not_with_anothers_address(guest: Guest) -> None:
    guest.be(nic().mac, "10.9.0.3")
    assert not guest.reaches("10.9.0.1")
    guest.be(nic().mac, "10.9.0.2", "10.9.0.3")
    assert guest.reaches("10.9.0.1", source="10.9.0.2")
    assert not guest.reaches("10.9.0.1", source="10.9.0.3")


def test_not_with_anothers_adapter(guest: Guest) -> None:
    guest.be("02:00:00:00:00:99", "10.9.0.2")
    assert not guest.reaches("10.9.0.1")


def test_not_as_a_dhcp_server(guest: Guest) -> None:
    assert guest.says((67, 68), (1067, 68)) == 0
    assert guest.says((67, 67), (68, 67), (68, 69)) == 3


def test_not_in_version_six(guest: Guest) -> None:
    guest.on_host(f"ip addr add fd00::1/64 dev {BRIDGE} nodad")
    guest.be(nic().mac, "10.9.0.2")
    assert run("ip", "netns", "exec", guest.inside, "ip", "addr", "add", "fd00::2/64", "dev", "eth0", "nodad")
    assert not guest.reaches("fd00::1")


def test_not_with_the_host_where_that_has_no_address_on_its_bridge(guest: Guest) -> None:
    guest.on_host(f"ip addr del 10.9.0.1/24 dev {BRIDGE}")
    guest.in_it(f"ip route add {ELSEWHERE}/32 dev eth0")
    guest.in_it(f"ip neigh replace {ELSEWHERE} lladdr {BRIDGE_MAC} dev eth0")
    heard, refused = guest.count("Icmp", "InEchos"), guest.count("TcpExt", "IPReversePathFilter")
    guest.reaches(ELSEWHERE)
    until(lambda: guest.count("TcpExt", "IPReversePathFilter") > refused, what="the host has dropped it")
    assert guest.count("Icmp", "InEchos") == heard


def test_nor_is_it_told_what_addresses_the_host_has(guest: Guest) -> None:
    for source in ("10.9.0.2", "0.0.0.0"):  # noqa: S104 - as it asks before it has one
        assert guest.asks_who_has("10.9.0.1", source)
        assert not guest.asks_who_has(ELSEWHERE, source)


def test_a_bridge_that_believes_anybody_is_set_anew(guest: Guest) -> None:
    for setting in ("rp_filter", "arp_ignore"):
        guest.on_host(f"sysctl -q net.ipv4.conf.{BRIDGE}.{setting}=0")
        assert guest.agent(SET) == "False True\n"
