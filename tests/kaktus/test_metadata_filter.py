"""The metadata service is reached only by guests of its host: two hosts on one network, and an unrelated machine."""

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
CONNECT_MANY = """
import select, socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
poller = select.epoll()
for each in sockets:
    each.setblocking(False)
    poller.register(each, select.EPOLLIN | select.EPOLLERR | select.EPOLLET)
    each.connect_ex(("169.254.169.254", 81))  # a closed port, answered with RST
while poller.poll(0.5):
    pass
print(sum(each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 for each in sockets))
"""


def test_metadata_script() -> None:
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


def test_only_a_complete_table_has_the_fingerprint() -> None:
    output = {"rule": {"chain": "output", "comment": nftables.METADATA_FINGERPRINT}}
    stray = {"rule": {"chain": "output"}}
    for more, is_ours in (([output] * 2, True), ([output], False), ([output] * 3, False), ([output, stray], False)):
        found = nftables.metadata_fingerprint([*LISTING, *more])
        assert (found == nftables.METADATA_FINGERPRINT) == is_ours


class TwoHostNetwork:
    """Hosts `one` and `two`, each with a bridge and a guest on it, and a stranger on the bridge of the first."""

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex[:6]
        self._names: list[str] = []

    def namespace(self, name: str) -> str:
        """The namespace for a host or guest, created if need be."""
        namespace = f"kw-{self._run}-{name}"
        if namespace not in self._names:
            self._names.append(namespace)
            subprocess.run(["ip", "netns", "add", namespace], check=True)
        return namespace

    def run(self, machine: str, command: str, *, check: bool = True) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace(machine), *command.split()],
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
        self.run("one", f"ip link add eth1 type veth peer name eth1 netns {self.namespace('two')}")
        for host in ("one", "two"):
            self.run(host, "ip link set eth1 mtu 9000 master br0 up")
        self.run("one", "ip addr add 10.9.0.1/24 dev br0")
        self.run("one", f"ip route add {SERVICE}/32 dev br0")

    def _plug(self, host: str, port: str, machine: str, address: str, mac: str) -> None:
        self.run(host, f"ip link add {port} type veth peer name eth0 address {mac} netns {self.namespace(machine)}")
        self.run(host, f"ip link set {port} mtu 9000 master br0 up")
        self.run(machine, "ip link set eth0 mtu 9000")
        self.set_addresses(machine, mac, address)

    def set_addresses(self, machine: str, mac: str, *addresses: str) -> None:
        for command in (
            "ip addr flush dev eth0",
            "ip link set eth0 down",
            f"ip link set eth0 address {mac} up",
            *(f"ip addr add {address if '/' in address else address + '/24'} dev eth0" for address in addresses),
        ):
            self.run(machine, command)
        if f"{SERVICE}/32" not in addresses:
            self.run(machine, f"ip route add {SERVICE}/32 dev eth0 scope link")

    @contextmanager
    def serving(self, host: str, address: str, mac: str) -> Iterator[None]:
        """A metadata service on a host, for a guest with these addresses."""
        command = [sys.executable, str(HERE / "metadata_service.py"), "br0", "vnet", address, mac]
        with subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(host), *command],
            env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/sdk", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()
            assert process.wait(20) == 0

    def request_token(self, machine: str, timeout: float = 1.5) -> dict[str, object]:
        answer: dict[str, object] = json.loads(
            self.run(machine, f"{sys.executable} {HERE / 'token_client.py'} {timeout}")
        )
        return answer

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture(scope="module")
def network_without_service() -> Iterator[TwoHostNetwork]:
    network = TwoHostNetwork()
    try:
        network.build()
        yield network
    finally:
        network.close()


@pytest.fixture(scope="module")
def network(network_without_service: TwoHostNetwork) -> Iterator[TwoHostNetwork]:
    """The network with a service on each host for its own guest."""
    network = network_without_service
    with (
        network.serving("one", "10.9.0.2", "02:00:00:00:00:01"),
        network.serving("two", "10.9.0.3", "02:00:00:00:00:02"),
    ):
        yield network


ANSWERED = {"status": "HTTP/1.1 200 OK", "arp": [reserved.metadata_mac(id_of("vnet"))], "ttl": [1]}
NO_ANSWER = {"status": "", "arp": [], "ttl": []}


@pytest.mark.libvirt
def test_an_existing_bridge_is_unchanged(network_without_service: TwoHostNetwork) -> None:
    def bridge() -> str:
        """Its link as `ip` shows it, MTU and hardware address included."""
        return network_without_service.run("one", "ip -d -o link show br0").partition(" promiscuity ")[0]

    before = bridge()
    with network_without_service.serving("one", "10.9.0.2", "02:00:00:00:00:01"):
        assert "mtu 9000" in before
        assert bridge() == before
        assert PORT in network_without_service.run("one", "ip link")
    assert bridge() == before
    assert PORT not in network_without_service.run("one", "ip link")
    assert network_without_service.run("one", "nft list ruleset") == ""


@pytest.mark.libvirt
def test_no_answer_without_a_service(network_without_service: TwoHostNetwork) -> None:
    assert network_without_service.request_token("guest-one") == NO_ANSWER


@pytest.mark.libvirt
def test_each_guest_is_answered_once_by_its_own_host_with_ttl_1(network: TwoHostNetwork) -> None:
    for machine in ("guest-one", "guest-two"):
        network.run(machine, "ip neigh flush dev eth0")
        assert network.request_token(machine) == ANSWERED


@pytest.mark.libvirt
def test_a_stranger_on_the_network_gets_no_answer(network: TwoHostNetwork) -> None:
    assert network.request_token("stranger") == NO_ANSWER
    network.set_addresses("stranger", "02:00:00:00:00:09", "10.9.0.2")
    assert network.request_token("stranger") == NO_ANSWER


@pytest.mark.libvirt
def test_the_host_gets_no_answer(network: TwoHostNetwork) -> None:
    assert "1 received" in network.run("one", "ping -c 1 -W 5 10.9.0.2")
    assert "0 received" in network.run("one", f"ping -c 1 -W 1 {SERVICE}", check=False)
    assert SERVICE not in network.run("one", "ip addr")


@pytest.mark.libvirt
def test_spoofed_arp_is_dropped(network: TwoHostNetwork) -> None:
    network.set_addresses("stranger", "02:00:00:00:00:09", "10.9.0.9", f"{SERVICE}/32")
    network.run("guest-one", "ip neigh flush dev eth0")
    assert network.request_token("guest-one") == ANSWERED
    network.run("stranger", f"{sys.executable} {HERE / 'arp_announcer.py'} 02:00:00:00:00:09")
    assert network.request_token("guest-one", 0.5)["status"] == ANSWERED["status"]
    assert "02:00:00:00:00:09" not in network.run("guest-one", "ip neigh")


@pytest.mark.libvirt
def test_a_spoofed_service_mac_gets_no_traffic(network: TwoHostNetwork) -> None:
    network.set_addresses("stranger", reserved.metadata_mac(id_of("vnet")), "10.9.0.8")
    assert "0 received" in network.run("stranger", "ping -c 1 -W 1 10.9.0.2", check=False)  # replies do not reach it
    assert network.request_token("guest-one")["status"] == ANSWERED["status"]


@pytest.mark.libvirt
def test_connections_of_a_guest_are_rate_limited(network: TwoHostNetwork) -> None:
    connect = ["ip", "netns", "exec", network.namespace("guest-one"), sys.executable, "-c", CONNECT_MANY, "600"]
    answered = int(subprocess.run(connect, check=True, capture_output=True, text=True, timeout=30).stdout)
    assert 200 <= answered < 400
    assert network.request_token("guest-one")["status"] == ANSWERED["status"]
    assert "asking" in network.run("one", "nft -j list ruleset")
