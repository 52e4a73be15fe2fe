"""An agent's addresses of Kahuna, and the goodbyes that it follows."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime import agent as agents
from kowa.runtime.addresses import Addresses, is_address
from kowa.runtime.settings import AgentSettings
from tests.control_plane import FakeWorker
from tests.fleet.manual_kahuna import ManualKahuna
from tests.waiting import until

A, B, C = "a.example.net:7443", "b.example.net:7443", "c.example.net:7443"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kahuna(tmp_path: Path) -> Iterator[ManualKahuna]:
    """A Kahuna whose messages the test writes."""
    manual = ManualKahuna(tmp_path)
    yield manual
    manual.close()


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"localhost:{taken.getsockname()[1]}"


def test_addresses_are_tried_in_turn(tmp_path: Path) -> None:
    addresses = Addresses([A, B, C], tmp_path, Clock())
    dialled = []
    for _ in range(5):
        dialled.append(addresses.current)
        assert addresses.next() == 0
    assert dialled == [A, B, C, A, B]


def test_the_last_good_address_is_the_first_also_after_a_restart(tmp_path: Path) -> None:
    addresses = Addresses([A, B, C], tmp_path, Clock())
    addresses.next()
    addresses.is_good()
    assert Addresses([A, B, C], tmp_path, Clock()).current == B
    assert Addresses([A, C], tmp_path, Clock()).current == A, "one that is not configured any more is forgotten"


def test_a_wrong_entry_and_a_damaged_file_strand_nobody(tmp_path: Path) -> None:
    (tmp_path / "address").write_bytes(b"\xff\xfe")
    with capture_logs() as logged:
        addresses = Addresses(["https://a.example.net", "b:0", B, "c"], tmp_path, Clock())
    assert [entry["address"] for entry in logged] == ["https://a.example.net", "b:0", "c"]
    for _ in range(3):
        assert addresses.current == B
        addresses.next()


def test_an_address_that_asks_for_a_pause_makes_way_for_the_others(tmp_path: Path) -> None:
    clock = Clock()
    addresses = Addresses([A, B], tmp_path, clock)
    assert (addresses.next(30), addresses.current) == (0, B)
    assert (addresses.next(), addresses.current) == (0, B), "the other one is not dialled before its time"
    assert (addresses.next(60), addresses.current) == (30, A)
    clock.now = 30
    assert (addresses.next(), addresses.current) == (0, A)


def test_an_address_that_kahuna_names_is_dialled_once(tmp_path: Path) -> None:
    addresses = Addresses([A, B], tmp_path, Clock())
    assert (addresses.next(5, told=C), addresses.current) == (0, C)
    addresses.is_good()
    assert Addresses([A, B], tmp_path, Clock()).current == A, "only a configured one is kept"
    assert (addresses.next(), addresses.current) == (0, B)


@pytest.mark.parametrize(
    ("text", "is_good"),
    [("10.0.0.1:7443", True), ("[fd00::1]:7443", True), ("kahuna:7443", True), ("kahuna", False), ("a:65536", False),
     ("fd00::1:7443", False), ("", False), ("a b:1", False)],
)  # fmt: skip
def test_an_address_is_host_and_port(text: str, is_good: bool) -> None:
    assert is_address(text) == is_good


def test_settings_without_any_good_address_are_refused_with_an_example(tmp_path: Path) -> None:
    class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
        agent = "kiwi"

    config = tmp_path / "kiwi.toml"
    config.write_text('servers = ["kahuna"]\nca = "ca"\ntoken = "t"\nstate = "s"\n')
    with pytest.raises(ValueError, match=r"servers: none of \['kahuna'\] is an address, host:port; write servers = \["):
        Settings.load(config)


def test_an_agent_goes_on_to_the_next_address_and_starts_with_it(
    kahuna: ManualKahuna, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "FIRST_PAUSE_S", 0.02)
    with closed_port() as dead:
        kahuna.more_servers = (dead,)
        agent = kahuna.start_agent(FakeWorker())
        kahuna.session().welcome("first incarnation")
        until((kahuna.folder / "agent" / "address").exists, what="the good address")
        kahuna.stop(agent)
    assert (kahuna.folder / "agent" / "address").read_text() == kahuna.address


def test_an_agent_follows_a_goodbye(kahuna: ManualKahuna, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back after the pause that Kahuna asks for, not after its own."""
    monkeypatch.setattr(agents, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(agents, "LONGEST_PAUSE_S", 0.01)  # of its own pauses
    slept: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await real_sleep(0)

    kahuna.start_agent(FakeWorker())
    session = kahuna.session()
    session.welcome("first incarnation")
    monkeypatch.setattr(asyncio, "sleep", sleep)
    goodbye = fleet_pb2.Goodbye(farewell=fleet_pb2.FAREWELL_OVERLOADED, message="too many")
    goodbye.retry_after.FromSeconds(40)
    with capture_logs() as logged:
        session.send(goodbye=goodbye)
        session = kahuna.session()
        goodbye.farewell, goodbye.address = 99, "other.invalid:1"  # type: ignore[assignment]
        assert session.receive().hello.protocol == 1
        session.send(goodbye=goodbye)  # at the sign-in, of a kind that this agent does not know
        kahuna.session()
    asked = [seconds for seconds in slept if seconds > 30]
    assert len(asked) == 2
    assert all(40 * 0.99 <= seconds <= 50 for seconds in asked)
    ends = [(entry["server"], entry["reason"]) for entry in logged if entry["event"] == "session.ended"]
    assert ends[:2] == [(kahuna.address, "too many")] * 2
    assert ends[2][0] == "other.invalid:1", "the address that Kahuna named is dialled at once, and once"
