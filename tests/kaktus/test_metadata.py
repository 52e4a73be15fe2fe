"""The metadata service as guests meet it: each reads its own, whatever another one tries."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent_kaktus import names
from deploy import programs
from kowa.runtime.store import Holdings
from tests.waiting import until

from .hosts import GUEST, IMAGE, Agent, Host, private_host
from .shell import Shell
from .slices import MIB, Slice, id_of, slice_with_network
from .test_real import BOOT, is_running

pytestmark = pytest.mark.libvirt

ALICE, BOB, TWIN = "alice", "bob", "twin"  # two on one vnet; one on another, with the first one's address
MACS = {ALICE: "02:00:00:00:00:0a", BOB: "02:00:00:00:00:0b", TWIN: "02:00:00:00:00:0c"}
ADDRESSES = {ALICE: "10.9.0.2", BOB: "10.9.0.3", TWIN: "10.9.0.2"}
SERVICE, GATEWAY = "169.254.169.254", "10.9.0.1"
VNETS = ("vnet", "elsewhere")

ROUTE = f"ip route add {SERVICE}/32 dev eth0 scope link"
TAKE_BOBS_ADDRESS = f"ip addr flush dev eth0; ip addr add {ADDRESSES[BOB]}/24 dev eth0; {ROUTE}"
TAKE_BOBS_CARD = f"ip link set eth0 down; ip link set eth0 address {MACS[BOB]}; ip link set eth0 up; {ROUTE}"
GO_HOME = (
    f"ip link set eth0 down; ip addr flush dev eth0; ip link set eth0 address {MACS[ALICE]}; ip link set eth0 up",
    f"ip addr add {ADDRESSES[ALICE]}/24 dev eth0; {ROUTE}",
)


def neighbourhood(host: Host) -> Slice:
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
class Street:
    """Three guests and their shells."""

    host: Host
    slice: Slice
    agent: Agent
    shells: dict[str, Shell] = field(default_factory=dict)

    def run(self, who: str, command: str) -> str:
        return self.shells[who].run(command)

    def token(self, who: str) -> str:
        """As soon as the service gives one."""

        def given() -> str:
            told = self.ask(who, "/latest/api/token", "X-metadata-token-ttl-seconds: 600", "PUT")
            return "" if " " in told else told

        return until(given, timeout=BOOT, what=f"a token for {who}")

    def ask(self, who: str, path: str, headers: str, method: str = "GET", host: str = SERVICE) -> str:
        """What the service answers; several headers with \\r\\n between them."""
        return self.run(who, f"http {method} {host} {path} \"$(printf '{headers}')\"")

    def read(self, who: str, path: str, headers: str = "") -> str:
        """As itself, with a token of its own."""
        return self.ask(who, f"/latest/{path}", f"X-metadata-token: {self.token(who)}{headers}")

    def lives(self, who: str) -> None:
        """It reads its own, and nothing is lost on its way to the gateway."""
        assert self.read(who, "meta-data/metadata/proof") == f"{who}s"
        assert " 0% packet loss" in self.run(who, f"ping -c 3 -i 0.2 -W 2 {GATEWAY}")

    @contextmanager
    def alice_as(self, *commands: str) -> Iterator[None]:
        """Alice does something to her network, and afterwards has it again as it was."""
        for command in commands:
            assert self.run(ALICE, command) == ""
        try:
            yield
        finally:
            for command in GO_HOME:
                self.run(ALICE, command)
            self.lives(ALICE)

    def shouts(self, way: str, address: str) -> None:
        """Alice says unasked that an address is hers, with a question (-U) or an answer (-A)."""
        assert "Sent 2 probe" in self.run(ALICE, f"arping {way} -c 2 -w 3 -I eth0 {address}")

    def gets_nothing(self) -> None:
        """Alice, as whoever she is."""
        told = self.ask(ALICE, "/latest/api/token", "X-metadata-token-ttl-seconds: 600", "PUT")
        assert told == "no answer to PUT /latest/api/token"


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    if not (GUEST / IMAGE).exists():
        from deploy.guest.build import build

        build(GUEST)
    with private_host() as host, ExitStack() as shells:
        slice_ = neighbourhood(host)
        with host.agent(hold_gateway=True) as agent:
            agent.send(slice_.objects)
            for name in MACS:
                agent.until(id_of(name), is_running, BOOT)
                until(lambda at=name: "kowabunga: ready" in host.console(id_of(at)), timeout=BOOT, what=name)  # type: ignore[misc]
            terminals = {name: host.virsh("ttyconsole", names.domain(id_of(name))) for name in MACS}
            opened = {name: shells.enter_context(Shell(terminal)) for name, terminal in terminals.items()}
            yield Street(host, slice_, agent, opened)


def test_each_boots_from_it(street: Street) -> None:
    for name in MACS:
        told = street.host.console(id_of(name))
        assert "kowabunga: source=metadata" in told
        assert f"kowabunga: hostname={name}" in told
        assert f"kowabunga: instance-id={id_of(name)}" in told
        assert f"kowabunga: proof={name}s" in told


def test_each_reads_its_own(street: Street) -> None:
    for name in MACS:
        told = json.loads(street.read(name, "meta-data"))
        assert (told["hostname"], told["instance-id"], told["mac"]) == (name, id_of(name), MACS[name])
        assert told["local-ipv4"] == street.read(name, "meta-data/local-ipv4") == ADDRESSES[name]
        assert told["placement"] == {"availability-zone": "zone-a", "region": "region"}
        assert told["metadata"] == {"proof": f"{name}s"}
        assert "user-data" not in street.read(name, "")


def test_without_a_token_there_is_nothing(street: Street) -> None:
    path = "/latest/meta-data/instance-id"
    for headers in ("Accept: */*", "X-metadata-token: let-me-in"):
        assert street.ask(ALICE, path, headers) == f"HTTP 401 to GET {path}"


def test_no_header_makes_one_another(street: Street) -> None:
    forged = "".join(
        f"\\r\\n{header}"
        for header in (
            f"X-Kowabunga-Source-Ip: {ADDRESSES[BOB]}",
            f"X-Kowabunga-Instance-Id: {id_of(BOB)}",
            f"X-Real-Ip: {ADDRESSES[BOB]}",
            f"Forwarded: for={ADDRESSES[BOB]}",
        )
    )
    assert street.read(ALICE, "meta-data/instance-id", forged) == id_of(ALICE)
    proxied = f"\\r\\nX-Forwarded-For: {ADDRESSES[BOB]}"
    assert street.read(ALICE, "meta-data/instance-id", proxied) == "HTTP 403 to GET /latest/meta-data/instance-id"
    raw = (
        f"GET /latest/meta-data/instance-id HTTP/1.1\\r\\nHost: {ADDRESSES[BOB]}\\r\\nX-metadata-token: %s\\r\\n\\r\\n"
    )
    told = street.run(ALICE, f"printf '{raw}' {street.token(ALICE)} | nc -w 3 {SERVICE} 80 | tail -n 1")
    assert told == id_of(ALICE)


def test_a_token_is_good_for_one_machine(street: Street) -> None:
    token = street.token(ALICE)
    path = "/latest/meta-data/instance-id"
    assert street.ask(ALICE, path, f"X-metadata-token: {token}") == id_of(ALICE)
    for name in (BOB, TWIN):
        assert street.ask(name, path, f"X-metadata-token: {token}") == f"HTTP 401 to GET {path}"


def test_anothers_address_gets_nothing_and_disturbs_nobody(street: Street) -> None:
    with street.alice_as(TAKE_BOBS_ADDRESS):
        street.shouts("-U", ADDRESSES[BOB])
        street.gets_nothing()
        street.lives(BOB)


def test_anothers_address_beside_the_own_gets_nothing(street: Street) -> None:
    with street.alice_as(f"ip addr add {ADDRESSES[BOB]}/32 dev eth0"):
        speak_as = f"ip route replace {SERVICE}/32 dev eth0 scope link src"
        street.run(ALICE, f"{speak_as} {ADDRESSES[ALICE]}")
        assert street.read(ALICE, "meta-data/instance-id") == id_of(ALICE)
        street.run(ALICE, f"{speak_as} {ADDRESSES[BOB]}")
        street.gets_nothing()
        street.lives(BOB)


def test_anothers_adapter_gets_nothing_and_disturbs_nobody(street: Street) -> None:
    with street.alice_as(TAKE_BOBS_CARD):
        street.gets_nothing()
        street.lives(BOB)


def test_another_altogether_gets_nothing_and_disturbs_nobody(street: Street) -> None:
    with street.alice_as(TAKE_BOBS_CARD, f"ip route del {SERVICE}/32", TAKE_BOBS_ADDRESS):
        street.shouts("-A", ADDRESSES[BOB])
        street.gets_nothing()
        street.lives(BOB)


@pytest.mark.parametrize("claimed", [ADDRESSES[BOB], SERVICE, GATEWAY])
def test_who_answers_for_others_is_not_heard(street: Street, claimed: str) -> None:
    """Alice's kernel answers each question for the address, and she says unasked that it is hers."""
    with street.alice_as(f"ip addr add {claimed}/32 dev eth0"):
        street.run(BOB, "ip neigh flush dev eth0")
        for way in ("-U", "-A"):
            street.shouts(way, claimed)
        street.lives(BOB)
        assert MACS[ALICE] not in street.run(BOB, f"ip neigh show {claimed}")


def test_even_unfiltered_another_address_gets_nothing(street: Street) -> None:
    """Should somebody take the rules away, the adapter behind an address is still looked at."""
    table = names.filter_table(id_of("host"))
    street.run(BOB, "ip link set eth0 down")  # or it would win the race for its address
    street.host.run("nft", "delete", "table", "netdev", table)
    try:
        with street.alice_as(TAKE_BOBS_ADDRESS):
            assert "0 packets" not in street.run(ALICE, f"ping -c 1 -W 2 {GATEWAY}")
            street.gets_nothing()
    finally:
        street.run(BOB, f"ip link set eth0 up; {ROUTE}")
        street.agent.send(street.slice.objects)
        for name in MACS:
            tap = names.tap(id_of(f"{name}-nic"))
            until(lambda at=tap: at in street.host.run("nft", "list", "ruleset"), timeout=BOOT, what=f"rules on {tap}")  # type: ignore[misc]
    street.lives(BOB)


@contextmanager
def kaktus(host: Host) -> Iterator[None]:
    """The agent as it is installed."""
    command = [str(Path(sys.executable).with_name("kaktus")), "--config", str(host.base / "kaktus.toml")]
    process = programs.start(["ip", "netns", "exec", host.namespace, *command], host.base / "kaktus.log")
    try:
        yield
    finally:
        assert programs.end(process)
        assert process.returncode == 0


def test_it_goes_on_after_a_restart_with_kahuna_away(street: Street) -> None:
    """From what the agent has stored: there has been no stream since it started. Tokens count still."""
    token = street.token(ALICE)
    street.agent.stop()
    street.gets_nothing()
    held = Holdings(street.host.state)
    held.store(street.slice.objects.values(), ())
    held.close()
    with kaktus(street.host):
        for name in MACS:
            assert street.read(name, "meta-data/instance-id") == id_of(name)
        assert street.ask(ALICE, "/latest/meta-data/metadata/proof", f"X-metadata-token: {token}") == f"{ALICE}s"


def test_nothing_of_it_is_left(street: Street) -> None:
    street.agent.stop()
    with street.host.agent(hold_gateway=True) as agent:
        agent.send(street.slice.objects)
        until(lambda: found(street.host, agent) == (2, 2, True), timeout=BOOT, what="there are services")
        machines = [thing for name in MACS for thing in (name, f"{name}-nic", f"{name}-disk")]
        street.slice.gone(*machines)
        agent.send(street.slice.objects)
        until(
            lambda: found(street.host, agent) == (0, 0, False),
            timeout=BOOT,
            what="without machines there are no services",
        )
        rest = ("guest", "subnet", "far", *VNETS, "pool")
        street.slice.gone(*rest)
        agent.send(street.slice.objects)
        for thing in (*machines, *rest):
            agent.until(id_of(thing), lambda report: report.gone)
    assert street.host.run("nft", "list", "ruleset") == ""
    assert [line.split()[0] for line in street.host.run("ip", "-br", "link").splitlines()] == ["lo"]


def found(host: Host, agent: Agent) -> tuple[int, int, bool]:
    """Namespaces, ports and whether there is a metadata filter."""
    links = host.run("ip", "link")
    ports = sum(names.metadata_port(id_of(vnet)) in links for vnet in VNETS)
    return agent.namespaces(), ports, "table bridge" in host.run("nft", "list", "tables")
