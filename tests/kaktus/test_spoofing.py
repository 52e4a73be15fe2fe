"""What a guest can't do: a card's rules on a real device, with somebody behind it who tries."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from agent_kaktus.desired import Card
from agent_kaktus.parse import parse

from .slices import id_of, small_house

pytestmark = pytest.mark.libvirt

PUT = """
import asyncio, socket, sys
from ipaddress import IPv4Address
from agent_kaktus.desired import Card
from agent_kaktus.network.guard import Guards
async def main():
    card = Card(sys.argv[1], 1, False, "card", "", sys.argv[2], IPv4Address(sys.argv[3]))
    index = socket.if_nametoindex(card.tap)
    guards = Guards("6e5a1936-6806-5eb2-ba17-0e0235a2a13b")
    await guards.put(card, index)
    await guards.put(card, index)
    assert list(await guards.look()) == [card.tap]
asyncio.run(main())
"""


def card() -> Card:
    slice_ = small_house()
    slice_.adapter("card", "10.9.0.2")
    return parse(slice_.objects).cards[id_of("card")]


def run(*command: str) -> bool:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
    return done.returncode == 0


class Guest:
    """A namespace behind a device that is called as a tap would be, on a bridge in another namespace."""

    def __init__(self) -> None:
        name = uuid.uuid4().hex[:8]
        self.host, self.inside = f"kh-{name}", f"kg-{name}"

    def build(self) -> None:
        for namespace in (self.host, self.inside):
            assert run("ip", "netns", "add", namespace)
        self.on_host("ip link add br0 type bridge")
        self.on_host(f"ip link add {card().tap} type veth peer name eth0 netns {self.inside}")
        self.on_host(f"ip link set {card().tap} master br0 up")
        self.on_host("ip link set br0 up")
        self.on_host("ip addr add 10.9.0.1/24 dev br0")
        self.be(card().mac, "10.9.0.2")
        put = [sys.executable, "-c", PUT, card().id, card().mac, str(card().address)]
        assert run("ip", "netns", "exec", self.host, *put)

    def on_host(self, command: str) -> None:
        assert run("ip", "netns", "exec", self.host, *command.split()), command

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
        self.on_host("ip neigh flush dev br0")

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
    guest.be(card().mac, "10.9.0.3")
    assert not guest.reaches("10.9.0.1")
    guest.be(card().mac, "10.9.0.2", "10.9.0.3")
    assert guest.reaches("10.9.0.1", source="10.9.0.2")
    assert not guest.reaches("10.9.0.1", source="10.9.0.3")


def test_not_with_anothers_card(guest: Guest) -> None:
    guest.be("02:00:00:00:00:99", "10.9.0.2")
    assert not guest.reaches("10.9.0.1")


def test_not_in_version_six(guest: Guest) -> None:
    guest.on_host("ip addr add fd00::1/64 dev br0 nodad")
    guest.be(card().mac, "10.9.0.2")
    assert run("ip", "netns", "exec", guest.inside, "ip", "addr", "add", "fd00::2/64", "dev", "eth0", "nodad")
    assert not guest.reaches("fd00::1")
