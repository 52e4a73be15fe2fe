"""The metadata service for real guests: each reads its own document, whatever another one tries."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from agent_kaktus import names
from deploy import programs
from kowa.runtime.store import Holdings
from tests.waiting import until

from .hosts import GUEST, IMAGE, Agent, Host, private_host
from .shell import Shell
from .slices import MIB, Slice, id_of, slice_with_network
from .test_real import BOOT_TIMEOUT_S, is_running

pytestmark = pytest.mark.libvirt

ALICE, BOB, TWIN = "alice", "bob", "twin"  # two on one vnet; one on another, with the first one's address
MACS = {ALICE: "02:00:00:00:00:0a", BOB: "02:00:00:00:00:0b", TWIN: "02:00:00:00:00:0c"}
ADDRESSES = {ALICE: "10.9.0.2", BOB: "10.9.0.3", TWIN: "10.9.0.2"}
SERVICE, GATEWAY = "169.254.169.254", "10.9.0.1"
VNETS = ("vnet", "elsewhere")

ROUTE = f"ip route add {SERVICE}/32 dev eth0 scope link"
TAKE_BOBS_ADDRESS = f"ip addr flush dev eth0; ip addr add {ADDRESSES[BOB]}/24 dev eth0; {ROUTE}"
TAKE_BOBS_MAC = f"ip link set eth0 down; ip link set eth0 address {MACS[BOB]}; ip link set eth0 up; {ROUTE}"
RESTORE_NETWORK = (
    f"ip link set eth0 down; ip addr flush dev eth0; ip link set eth0 address {MACS[ALICE]}; ip link set eth0 up",
    f"ip addr add {ADDRESSES[ALICE]}/24 dev eth0; {ROUTE}",
)


def slice_of_three_guests(host: Host) -> Slice:
    slice_ = slice_with_network()
    slice_.vnet("elsewhere")
    slice_.subnet("far", vnet="elsewhere", gateway="")
    image, checksum = host.offer_guest()
    slice_.template("guest", image, checksum)
    for name in MACS:
        slice_.volume(f"{name}-disk", 128 * MIB, "guest")
        subnet = "far" if name == TWIN else "subnet"
        slice_.adapter(f"{name}-nic", ADDRESSES[name], MACS[name], subnet)
        slice_.instance(name, (f"{name}-disk",), (f"{name}-nic",), metadata={"proof": f"{name}s"})
    return slice_


@dataclass
class ThreeGuests:
    """Three guests on a host, and their shells."""

    host: Host
    slice: Slice
    agent: Agent
    shells: dict[str, Shell] = field(default_factory=dict)

    def run(self, name: str, command: str) -> str:
        return self.shells[name].run(command)

    def token(self, name: str) -> str:
        """Waits until the service gives a guest a token."""

        def given() -> str:
            response = self.request(name, "/latest/api/token", "X-metadata-token-ttl-seconds: 600", "PUT")
            return "" if " " in response else response

        return until(given, timeout=BOOT_TIMEOUT_S, what=f"a token for {name}")

    def request(self, name: str, path: str, headers: str, method: str = "GET", host: str = SERVICE) -> str:
        """The response to a request of a guest; `headers` are separated by \\r\\n."""
        return self.run(name, f"http {method} {host} {path} \"$(printf '{headers}')\"")

    def read(self, name: str, path: str, headers: str = "") -> str:
        """The response to a guest with a valid token."""
        return self.request(name, f"/latest/{path}", f"X-metadata-token: {self.token(name)}{headers}")

    def check_undisturbed(self, name: str) -> None:
        """Checks that a guest reads its own document, and that no packet to the gateway is lost."""
        assert self.read(name, "meta-data/metadata/proof") == f"{name}s"
        assert " 0% packet loss" in self.run(name, f"ping -c 3 -i 0.2 -W 2 {GATEWAY}")

    @contextmanager
    def alice_as(self, *commands: str) -> Iterator[None]:
        """Runs commands on Alice's network, and restores it afterwards."""
        for command in commands:
            assert self.run(ALICE, command) == ""
        try:
            yield
        finally:
            for command in RESTORE_NETWORK:
                self.run(ALICE, command)
            self.check_undisturbed(ALICE)

    def announce(self, option: str, address: str) -> None:
        """Alice announces an address as hers by unsolicited ARP requests (-U) or replies (-A)."""
        assert "Sent 2 probe" in self.run(ALICE, f"arping {option} -c 2 -w 3 -I eth0 {address}")

    def check_alice_gets_no_answer(self) -> None:
        response = self.request(ALICE, "/latest/api/token", "X-metadata-token-ttl-seconds: 600", "PUT")
        assert response == "no answer to PUT /latest/api/token"


@pytest.fixture(scope="module")
def guests() -> Iterator[ThreeGuests]:
    if not (GUEST / IMAGE).exists():
        from deploy.guest.build import build

        build(GUEST)
    with private_host() as host, ExitStack() as shells:
        slice_ = slice_of_three_guests(host)
        with host.agent(hold_gateway=True) as agent:
            agent.send(slice_.objects)
            for name in MACS:
                agent.until(id_of(name), is_running, BOOT_TIMEOUT_S)
                until(lambda at=name: "kowabunga: ready" in host.console(id_of(at)), timeout=BOOT_TIMEOUT_S, what=name)  # type: ignore[misc]
            terminals = {name: host.virsh("ttyconsole", names.domain(id_of(name))) for name in MACS}
            opened = {name: shells.enter_context(Shell(terminal)) for name, terminal in terminals.items()}
            yield ThreeGuests(host, slice_, agent, opened)


def test_guests_boot_with_data_of_the_service(guests: ThreeGuests) -> None:
    for name in MACS:
        printed = guests.host.console(id_of(name))
        assert "kowabunga: source=metadata" in printed
        assert f"kowabunga: hostname={name}" in printed
        assert f"kowabunga: instance-id={id_of(name)}" in printed
        assert f"kowabunga: proof={name}s" in printed


def test_each_guest_reads_its_own_document(guests: ThreeGuests) -> None:
    for name in MACS:
        document = json.loads(guests.read(name, "meta-data"))
        assert (document["hostname"], document["instance-id"], document["mac"]) == (name, id_of(name), MACS[name])
        assert document["local-ipv4"] == guests.read(name, "meta-data/local-ipv4") == ADDRESSES[name]
        assert document["placement"] == {"availability-zone": "zone-a", "region": "region"}
        assert document["metadata"] == {"proof": f"{name}s"}
        assert "user-data" not in guests.read(name, "")


def test_a_request_without_a_valid_token_is_refused(guests: ThreeGuests) -> None:
    path = "/latest/meta-data/instance-id"
    for headers in ("Accept: */*", "X-metadata-token: let-me-in"):
        assert guests.request(ALICE, path, headers) == f"HTTP 401 to GET {path}"


def test_headers_do_not_change_the_sender(guests: ThreeGuests) -> None:
    forged = "".join(
        f"\\r\\n{header}"
        for header in (
            f"X-Kowabunga-Source-Ip: {ADDRESSES[BOB]}",
            f"X-Kowabunga-Instance-Id: {id_of(BOB)}",
            f"X-Real-Ip: {ADDRESSES[BOB]}",
            f"Forwarded: for={ADDRESSES[BOB]}",
        )
    )
    assert guests.read(ALICE, "meta-data/instance-id", forged) == id_of(ALICE)
    proxied = f"\\r\\nX-Forwarded-For: {ADDRESSES[BOB]}"
    assert guests.read(ALICE, "meta-data/instance-id", proxied) == "HTTP 403 to GET /latest/meta-data/instance-id"
    raw = (
        f"GET /latest/meta-data/instance-id HTTP/1.1\\r\\nHost: {ADDRESSES[BOB]}\\r\\nX-metadata-token: %s\\r\\n\\r\\n"
    )
    response = guests.run(ALICE, f"printf '{raw}' {guests.token(ALICE)} | nc -w 3 {SERVICE} 80 | tail -n 1")
    assert response == id_of(ALICE)


def test_a_token_is_valid_for_one_instance(guests: ThreeGuests) -> None:
    token = guests.token(ALICE)
    path = "/latest/meta-data/instance-id"
    assert guests.request(ALICE, path, f"X-metadata-token: {token}") == id_of(ALICE)
    for name in (BOB, TWIN):
        assert guests.request(name, path, f"X-metadata-token: {token}") == f"HTTP 401 to GET {path}"


def test_a_stolen_address_gets_no_answer_and_disturbs_nobody(guests: ThreeGuests) -> None:
    with guests.alice_as(TAKE_BOBS_ADDRESS):
        guests.announce("-U", ADDRESSES[BOB])
        guests.check_alice_gets_no_answer()
        guests.check_undisturbed(BOB)


def test_an_additional_stolen_address_gets_no_answer(guests: ThreeGuests) -> None:
    with guests.alice_as(f"ip addr add {ADDRESSES[BOB]}/32 dev eth0"):
        speak_as = f"ip route replace {SERVICE}/32 dev eth0 scope link src"
        guests.run(ALICE, f"{speak_as} {ADDRESSES[ALICE]}")
        assert guests.read(ALICE, "meta-data/instance-id") == id_of(ALICE)
        guests.run(ALICE, f"{speak_as} {ADDRESSES[BOB]}")
        guests.check_alice_gets_no_answer()
        guests.check_undisturbed(BOB)


def test_a_stolen_mac_gets_no_answer_and_disturbs_nobody(guests: ThreeGuests) -> None:
    with guests.alice_as(TAKE_BOBS_MAC):
        guests.check_alice_gets_no_answer()
        guests.check_undisturbed(BOB)


def test_a_stolen_mac_and_address_get_no_answer_and_disturb_nobody(guests: ThreeGuests) -> None:
    with guests.alice_as(TAKE_BOBS_MAC, f"ip route del {SERVICE}/32", TAKE_BOBS_ADDRESS):
        guests.announce("-A", ADDRESSES[BOB])
        guests.check_alice_gets_no_answer()
        guests.check_undisturbed(BOB)


@pytest.mark.parametrize("claimed", [ADDRESSES[BOB], SERVICE, GATEWAY])
def test_forged_arp_messages_are_dropped(guests: ThreeGuests, claimed: str) -> None:
    """Alice's kernel answers ARP requests for the address, and she announces it unsolicited."""
    with guests.alice_as(f"ip addr add {claimed}/32 dev eth0"):
        guests.run(BOB, "ip neigh flush dev eth0")
        for option in ("-U", "-A"):
            guests.announce(option, claimed)
        guests.check_undisturbed(BOB)
        assert MACS[ALICE] not in guests.run(BOB, f"ip neigh show {claimed}")


def test_a_stolen_address_gets_no_answer_without_filters(guests: ThreeGuests) -> None:
    """When somebody removes the rules, the service still checks the MAC behind an address."""
    table = names.filter_table(id_of("host"))
    guests.run(BOB, "ip link set eth0 down")  # or it would win the race for its address
    guests.host.run("nft", "delete", "table", "netdev", table)
    try:
        with guests.alice_as(TAKE_BOBS_ADDRESS):
            assert "0 packets" not in guests.run(ALICE, f"ping -c 1 -W 2 {GATEWAY}")
            guests.check_alice_gets_no_answer()
    finally:
        guests.run(BOB, f"ip link set eth0 up; {ROUTE}")
        guests.agent.send(guests.slice.objects)
        ruleset = partial(guests.host.run, "nft", "list", "ruleset")
        for name in MACS:
            tap = names.tap(id_of(f"{name}-nic"))
            until(lambda at=tap: at in ruleset(), timeout=BOOT_TIMEOUT_S, what=f"rules on {tap}")  # type: ignore[misc]
    guests.check_undisturbed(BOB)


@contextmanager
def kaktus(host: Host) -> Iterator[None]:
    """The installed agent, with the settings of the host's last one."""
    command = [str(Path(sys.executable).with_name("kaktus")), "--config", str(host.base / "kaktus.toml")]
    process = programs.start(["ip", "netns", "exec", host.namespace, *command], host.base / "kaktus.log")
    try:
        yield
    finally:
        assert programs.end(process)
        assert process.returncode == 0


def test_the_service_goes_on_after_a_restart_without_kahuna(guests: ThreeGuests) -> None:
    """From the slice that the agent stored, as it has had no stream since its start. Tokens are still valid."""
    token = guests.token(ALICE)
    guests.agent.stop()
    guests.check_alice_gets_no_answer()
    stored = Holdings(guests.host.state)
    stored.store(guests.slice.objects.values(), ())
    stored.close()
    with kaktus(guests.host):
        for name in MACS:
            assert guests.read(name, "meta-data/instance-id") == id_of(name)
        assert guests.request(ALICE, "/latest/meta-data/metadata/proof", f"X-metadata-token: {token}") == f"{ALICE}s"


def test_removed_instances_leave_nothing_of_the_service(guests: ThreeGuests) -> None:
    guests.agent.stop()
    with guests.host.agent(hold_gateway=True) as agent:
        agent.send(guests.slice.objects)
        until(
            lambda: services_of(guests.host, agent) == (2, 2, True), timeout=BOOT_TIMEOUT_S, what="there are services"
        )
        parts_of_guests = [part for name in MACS for part in (name, f"{name}-nic", f"{name}-disk")]
        guests.slice.gone(*parts_of_guests)
        agent.send(guests.slice.objects)
        until(
            lambda: services_of(guests.host, agent) == (0, 0, False),
            timeout=BOOT_TIMEOUT_S,
            what="without instances there are no services",
        )
        rest = ("guest", "subnet", "far", *VNETS, "pool")
        guests.slice.gone(*rest)
        agent.send(guests.slice.objects)
        for part in (*parts_of_guests, *rest):
            agent.until(id_of(part), lambda report: report.gone)
    assert guests.host.run("nft", "list", "ruleset") == ""
    assert [line.split()[0] for line in guests.host.run("ip", "-br", "link").splitlines()] == ["lo"]


def services_of(host: Host, agent: Agent) -> tuple[int, int, bool]:
    """The number of the agent's namespaces and of metadata ports, and whether there is a metadata filter."""
    links = host.run("ip", "link")
    ports = sum(names.metadata_port(id_of(vnet)) in links for vnet in VNETS)
    return agent.namespaces(), ports, "table bridge" in host.run("nft", "list", "tables")
