"""Where the metadata service can be reached from, and where not: two hosts on one wire, and somebody else on it."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_kaktus import names
from agent_kaktus.network import nftables
from kowa import reserved

from .hosts import REPOSITORY
from .slices import id_of

SERVICE = "169.254.169.254"
PORT = names.metadata_port(id_of("vnet"))
HERE = Path(__file__).parent
LISTING = [
    {"rule": {"chain": chain, "comment": nftables.METADATA_FINGERPRINT}} for chain in ["forward"] * 5 + ["input"]
]
KNOCK = """
import select, socket, sys
doors = [socket.socket() for _ in range(int(sys.argv[1]))]
ear = select.epoll()
for door in doors:
    door.setblocking(False)
    ear.register(door, select.EPOLLIN | select.EPOLLERR | select.EPOLLET)
    door.connect_ex(("169.254.169.254", 81))  # where nobody listens, and the kernel says so
while ear.poll(0.5):
    pass
print(sum(door.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 for door in doors))
"""


def test_the_whole_transaction() -> None:
    hook = "{{ type filter hook {0} priority 0; policy accept; }}"
    rules = {
        "forward": [
            'iifname "km*" oifname != "kt*" drop',
            'oifname "km*" iifname != "kt*" drop',
            'iifname "kt*" oifname "km*" tcp flags & (syn | ack) == syn'
            " update @asking { iifname limit rate over 50/second burst 200 packets } drop",
            'oifname "kt*" iifname != "km*" arp saddr ip 169.254.169.254 drop',
            'iifname "kt*" oifname != "km*" arp daddr ip 169.254.169.254 drop',
        ],
        "input": ['iifname "km*" drop'],
        "output": ['oifname "km*" drop', 'oifname "kt*" arp saddr ip 169.254.169.254 drop'],
    }
    expected = ["add table bridge t", "delete table bridge t", "add table bridge t"]
    expected.append("add set bridge t asking { type ifname; size 4096; flags dynamic; timeout 1m; }")
    for chain, lines in rules.items():
        expected.append(f"add chain bridge t {chain} {hook.format(chain)}")
        expected += [f'add rule bridge t {chain} {line} comment "{nftables.METADATA_FINGERPRINT}"' for line in lines]
    assert nftables.metadata_script("t").splitlines() == expected


def test_only_a_whole_table_has_the_fingerprint() -> None:
    output = {"rule": {"chain": "output", "comment": nftables.METADATA_FINGERPRINT}}
    stray = {"rule": {"chain": "output"}}
    for more, is_ours in (([output] * 2, True), ([output], False), ([output] * 3, False), ([output, stray], False)):
        found = nftables.metadata_fingerprint([*LISTING, *more])
        assert (found == nftables.METADATA_FINGERPRINT) == is_ours


class Wire:
    """Hosts `one` and `two`, each with a bridge and a machine on it, and a stranger plugged into the first."""

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex[:6]
        self._names: list[str] = []

    def box(self, name: str) -> str:
        made = f"kw-{self._run}-{name}"
        if made not in self._names:
            self._names.append(made)
            subprocess.run(["ip", "netns", "add", made], check=True)
        return made

    def run(self, box: str, command: str, *, check: bool = True) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.box(box), *command.split()],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def build(self) -> None:
        for number, host in enumerate(("one", "two"), 1):
            self.run(host, "ip link add br0 type bridge")
            self.run(host, "ip link set br0 up")
            self._plug(
                host, f"kt00000000000{number}", f"guest-{host}", f"10.9.0.{number + 1}", f"02:00:00:00:00:0{number}"
            )
        self._plug("one", "eth9", "stranger", "10.9.0.9", "02:00:00:00:00:09")
        self.run("one", f"ip link add eth1 type veth peer name eth1 netns {self.box('two')}")
        for host in ("one", "two"):
            self.run(host, "ip link set eth1 mtu 9000 master br0 up")
        self.run("one", "ip addr add 10.9.0.1/24 dev br0")
        self.run("one", f"ip route add {SERVICE}/32 dev br0")

    def _plug(self, host: str, port: str, box: str, address: str, mac: str) -> None:
        self.run(host, f"ip link add {port} type veth peer name eth0 address {mac} netns {self.box(box)}")
        self.run(host, f"ip link set {port} mtu 9000 master br0 up")
        self.run(box, "ip link set eth0 mtu 9000")
        self.be(box, mac, address)

    def be(self, box: str, mac: str, *addresses: str) -> None:
        for command in (
            "ip addr flush dev eth0",
            "ip link set eth0 down",
            f"ip link set eth0 address {mac} up",
            *(f"ip addr add {address if '/' in address else address + '/24'} dev eth0" for address in addresses),
        ):
            self.run(box, command)
        if f"{SERVICE}/32" not in addresses:
            self.run(box, f"ip route add {SERVICE}/32 dev eth0 scope link")

    @contextmanager
    def served(self, host: str, address: str, mac: str) -> Iterator[None]:
        command = [sys.executable, str(HERE / "metadata_service.py"), "br0", "vnet", address, mac]
        with subprocess.Popen(
            ["ip", "netns", "exec", self.box(host), *command],
            env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/sdk", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()
            assert process.wait(20) == 0

    def request_token(self, box: str, limit: float = 1.5) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self.run(box, f"{sys.executable} {HERE / 'token_client.py'} {limit}"))
        return answer

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture(scope="module")
def bare() -> Iterator[Wire]:
    made = Wire()
    try:
        made.build()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def wire(bare: Wire) -> Iterator[Wire]:
    """Each host serves its own machine."""
    with bare.served("one", "10.9.0.2", "02:00:00:00:00:01"), bare.served("two", "10.9.0.3", "02:00:00:00:00:02"):
        yield bare


ANSWERED = {"status": "HTTP/1.1 200 OK", "arp": [reserved.metadata_mac(id_of("vnet"))], "ttl": [1]}
NOTHING = {"status": "", "arp": [], "ttl": []}


@pytest.mark.libvirt
def test_a_bridge_that_was_there_is_as_it_was(bare: Wire) -> None:
    def bridge() -> str:
        """Its MTU and hardware address among it."""
        return bare.run("one", "ip -d -o link show br0").partition(" promiscuity ")[0]

    before = bridge()
    with bare.served("one", "10.9.0.2", "02:00:00:00:00:01"):
        assert "mtu 9000" in before
        assert bridge() == before
        assert PORT in bare.run("one", "ip link")
    assert bridge() == before
    assert PORT not in bare.run("one", "ip link")
    assert bare.run("one", "nft list ruleset") == ""


@pytest.mark.libvirt
def test_who_is_served_nowhere_has_no_answer(bare: Wire) -> None:
    assert bare.request_token("guest-one") == NOTHING


@pytest.mark.libvirt
def test_each_machine_is_answered_once_by_its_own_host_and_no_hop_further(wire: Wire) -> None:
    for box in ("guest-one", "guest-two"):
        wire.run(box, "ip neigh flush dev eth0")
        assert wire.request_token(box) == ANSWERED


@pytest.mark.libvirt
def test_others_on_the_wire_have_no_answer(wire: Wire) -> None:
    assert wire.request_token("stranger") == NOTHING
    wire.be("stranger", "02:00:00:00:00:09", "10.9.0.2")
    assert wire.request_token("stranger") == NOTHING


@pytest.mark.libvirt
def test_nor_has_the_host_itself(wire: Wire) -> None:
    assert "1 received" in wire.run("one", "ping -c 1 -W 5 10.9.0.2")
    assert "0 received" in wire.run("one", f"ping -c 1 -W 1 {SERVICE}", check=False)
    assert SERVICE not in wire.run("one", "ip addr")


@pytest.mark.libvirt
def test_answers_of_others_in_its_place_are_dropped(wire: Wire) -> None:
    wire.be("stranger", "02:00:00:00:00:09", "10.9.0.9", f"{SERVICE}/32")
    wire.run("guest-one", "ip neigh flush dev eth0")
    assert wire.request_token("guest-one") == ANSWERED
    wire.run("stranger", f"{sys.executable} {HERE / 'arp_announcer.py'} 02:00:00:00:00:09")
    assert wire.request_token("guest-one", 0.5)["status"] == ANSWERED["status"]
    assert "02:00:00:00:00:09" not in wire.run("guest-one", "ip neigh")


@pytest.mark.libvirt
def test_nor_does_its_hardware_address_lead_elsewhere(wire: Wire) -> None:
    wire.be("stranger", reserved.metadata_mac(id_of("vnet")), "10.9.0.8")
    assert "0 received" in wire.run("stranger", "ping -c 1 -W 1 10.9.0.2", check=False)  # the answer is not for it
    assert wire.request_token("guest-one")["status"] == ANSWERED["status"]


@pytest.mark.libvirt
def test_a_machine_may_send_many_requests_but_not_any_number(wire: Wire) -> None:
    knock = ["ip", "netns", "exec", wire.box("guest-one"), sys.executable, "-c", KNOCK, "600"]
    answered = int(subprocess.run(knock, check=True, capture_output=True, text=True, timeout=30).stdout)
    assert 200 <= answered < 400
    assert wire.request_token("guest-one")["status"] == ANSWERED["status"]
    assert "asking" in wire.run("one", "nft -j list ruleset")
