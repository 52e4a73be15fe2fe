"""What an agent does with what it is told, against a Kahuna played by hand: nothing goes by omission."""

import asyncio
import itertools
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.agent import serve
from kowa.runtime.feed import Feed, Refused
from kowa.runtime.outbox import MAX_BYTES, Outbox
from kowa.runtime.session import Session
from kowa.runtime.settings import AgentSettings
from kowa.runtime.state import lock_state
from kowa.runtime.store import Holdings
from tests.control_plane import FakeHost
from tests.fleet.manual_kahuna import ManualKahuna, vnet
from tests.fleet_resources import content, edited
from tests.waiting import until

ONE = "one life of the store"
MANY = [vnet(number) for number in range(5)]


@pytest.fixture
def kahuna(tmp_path: Path) -> Iterator[ManualKahuna]:
    """A Kahuna that says what the test says."""
    made = ManualKahuna(tmp_path)
    yield made
    made.close()


def held(kahuna: ManualKahuna) -> dict[str, fleet_pb2.Object]:
    """What lies in the agent's store, once it has stopped."""
    holdings = Holdings(kahuna.folder / "agent")
    try:
        return dict(holdings.objects)
    finally:
        holdings.close()


class Destroyer(FakeHost):
    """A host that notes everything it is ever told to destroy."""

    def __init__(self) -> None:
        super().__init__()
        self.destroyed: set[str] = set()

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        super().accept(desired)
        self.destroyed |= {described.id for described in desired.values() if described.gone}


def test_half_a_set_counts_for_nothing(kahuna: ManualKahuna) -> None:
    host = Destroyer()
    agent = kahuna.agent(host)
    session = kahuna.session()
    session.welcome(ONE)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=MANY, last=True))
    assert session.ack().refusal == ""
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=[vnet(1, 2, gone=True)]))
    session.send(batch=fleet_pb2.Batch(nonce="2", removed=[MANY[2].id]))
    session.cut()
    session = kahuna.session()
    assert len(session.welcome(ONE)) == len(MANY)
    # A set that was given up in the middle for another.
    session.send(batch=fleet_pb2.Batch(nonce="3", objects=[vnet(3, 2, gone=True)]))
    session.send(batch=fleet_pb2.Batch(nonce="4", objects=[vnet(4, 2)], last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="4")
    until(lambda: host.wanted[MANY[4].id].generation == 2, what="the whole set")
    kahuna.stop(agent)
    assert held(kahuna) == {one.id: one for one in [*MANY[:4], vnet(4, 2)]}
    assert host.destroyed == set()


def test_an_empty_set_takes_nothing_away(kahuna: ManualKahuna) -> None:
    host = Destroyer()
    agent = kahuna.agent(host)
    session = kahuna.session()
    session.welcome(ONE)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=MANY, last=True))
    session.ack()
    session.send(batch=fleet_pb2.Batch(nonce="2", last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="2")
    kahuna.stop(agent)
    assert held(kahuna) == {one.id: one for one in MANY}
    assert host.destroyed == set()


def test_the_state_of_another_life_of_the_store_is_dropped_and_nothing_destroyed(kahuna: ManualKahuna) -> None:
    host = Destroyer()
    kahuna.agent(host)
    session = kahuna.session()
    assert session.welcome(ONE) == []
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=MANY, last=True))
    session.ack()
    until(lambda: len(host.wanted) == len(MANY), what="the slice")
    session.cut()
    session = kahuna.session()
    assert session.welcome("another life") == []
    # What it saw of the other life's generations is not said in this one.
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=[vnet(9)], last=True))
    reported = set()
    while vnet(9).id not in reported:
        request = session.receive()
        reported |= {report.id for report in request.reports.reports}
    assert reported == {vnet(9).id}
    until(lambda: list(host.wanted) == [vnet(9).id], what="the new slice")
    assert host.destroyed == set()


def test_an_agent_works_from_its_store_while_kahuna_is_away(kahuna: ManualKahuna) -> None:
    agent = kahuna.agent(FakeHost())
    session = kahuna.session()
    session.welcome(ONE)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=MANY, last=True))
    session.ack()
    kahuna.stop(agent)
    host = FakeHost()
    kahuna.agent(host)
    # Nobody has answered its call yet.
    until(lambda: len(host.wanted) == len(MANY), what="the stored slice")
    offered = kahuna.session().welcome(ONE)
    assert {(one.id, one.generation) for one in offered} == {(one.id, one.generation) for one in MANY}


class Older(Destroyer):
    """A host of an older version: there are vnets it does not know how to make, and for some it has no words."""

    def __init__(self, refused: str, error: type[Exception] = Refused) -> None:
        super().__init__()
        self.refused, self.error = refused, error

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        if any(content(described).name == self.refused for described in desired.values()):
            raise self.error(self.refused)
        super().accept(desired)


@pytest.mark.parametrize("error", [Refused, KeyError])
def test_what_a_newer_version_stored_is_asked_for_anew_and_nothing_destroyed(
    kahuna: ManualKahuna, error: type[Exception]
) -> None:
    newer = kahuna.agent(FakeHost())
    session = kahuna.session()
    session.welcome(ONE)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=MANY, last=True))
    session.ack()
    kahuna.stop(newer)
    host = Older("vnet-3", error)
    agent = kahuna.agent(host)
    session = kahuna.session()
    assert {(one.id, one.generation) for one in session.welcome(ONE)} == {(one.id, 0) for one in MANY}
    # Kahuna, which sees no generation that it knows, sends all of it, and says what it does not know itself.
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=MANY[1:], removed=[MANY[0].id], last=True))
    assert "vnet-3" in session.ack().refusal
    better = [*MANY[1:3], vnet(9)]
    removed = [one.id for one in MANY if one not in better]
    session.send(batch=fleet_pb2.Batch(nonce="3", objects=better, removed=removed, last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="3")
    until(lambda: set(host.wanted) == {one.id for one in better}, what="the better slice")
    session.cut()
    offered = kahuna.session().welcome(ONE)
    assert {(one.id, one.generation) for one in offered} == {(one.id, 1) for one in better}
    kahuna.stop(agent)
    assert held(kahuna) == {one.id: one for one in better}
    assert host.destroyed == set()


def test_the_worker_hears_of_what_is_stored_though_the_session_ends_over_its_ack(
    kahuna: ManualKahuna, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE_S", 60)
    write = Session._write

    async def lose_acks(self: Session, request: fleet_pb2.ConnectRequest) -> None:
        if request.WhichOneof("message") == "ack":
            raise TimeoutError("the line is dead")
        await write(self, request)

    monkeypatch.setattr(Session, "_write", lose_acks)

    class Sleeper(FakeHost):
        """Looks only when it hears that something has moved."""

        async def run(self, feed: Feed) -> None:
            while True:
                self.wanted = dict(feed.desired())
                await feed.wait_for_change(60)

    host = Sleeper()
    kahuna.agent(host)
    session = kahuna.session()
    session.welcome(ONE)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=MANY, last=True))
    until(lambda: len(host.wanted) == len(MANY), timeout=5, what="what is stored")


def test_what_the_worker_stumbles_over_is_refused_and_the_agent_goes_on(kahuna: ManualKahuna) -> None:
    class Clumsy(FakeHost):
        def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
            if vnet(9).id in desired:
                raise KeyError("vnet-9")

    agent = kahuna.agent(Clumsy())
    session = kahuna.session()
    session.welcome(ONE)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=[vnet(9)], last=True))
    assert session.ack().refusal == "the agent failed on it, its log says where: KeyError: 'vnet-9'"
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=MANY, last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="2")
    assert not agent.done()


def test_a_stream_that_ends_while_the_agent_writes_is_only_a_reason_to_dial_again(
    kahuna: ManualKahuna, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr("kowa.runtime.agent.LONGEST_PAUSE_S", 0.02)

    class Talker(FakeHost):
        """Always has something to say."""

        async def run(self, feed: Feed) -> None:
            for number in itertools.count():
                feed.report(fleet_pb2.Report(id=MANY[0].id, message=f"{number}"))
                await asyncio.sleep(0)

    agent = kahuna.agent(Talker())
    for round_ in range(20):
        session = kahuna.session()
        session.welcome(ONE)
        session.send(batch=fleet_pb2.Batch(nonce=f"{round_}", objects=[vnet(round_)], last=True))
        session.ack()
        session.cut()
    kahuna.session()
    assert not agent.done()


def test_two_agents_never_work_from_one_state(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with lock_state(tmp_path / "state"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        with pytest.raises(SystemExit, match=r"another agent uses .*state; stop it first"):
            serve(FakeHost(), AgentSettings(server="", ca=nothing, token=nothing, state=tmp_path / "state"))
    try:
        with lock_state(tmp_path / "state"):
            """What an agent that died had started does not hold its place."""
    finally:
        child.kill()
        child.wait()


def test_a_full_disk_refuses_a_change_and_keeps_what_was(tmp_path: Path) -> None:
    holdings = Holdings(tmp_path)
    holdings.store(MANY, [])
    limit = holdings._connection.execute("PRAGMA page_count").fetchone()[0]
    holdings._connection.execute(f"PRAGMA max_page_count = {limit}")
    large = vnet(9)
    with edited(large) as resource:
        resource.description = "x" * 100_000
    with pytest.raises(OSError, match="the agent can't store it: database or disk is full"):
        holdings.store([large], [MANY[0].id])
    assert holdings.objects == {one.id: one for one in MANY}
    holdings._connection.execute("PRAGMA max_page_count = 100000")
    holdings.store([large], [MANY[0].id])
    holdings.close()
    again = Holdings(tmp_path)
    assert set(again.objects) == {large.id, *(one.id for one in MANY[1:])}
    again.close()


def test_a_damaged_store_is_put_aside_and_the_agent_starts_with_nothing(tmp_path: Path) -> None:
    holdings = Holdings(tmp_path)
    holdings.start_incarnation(ONE)
    holdings.store(MANY, [])
    holdings.close()
    (tmp_path / "holdings.db").write_bytes(b"not a database any more" * 100)
    again = Holdings(tmp_path)
    assert (again.objects, again.incarnation) == ({}, "")
    again.store(MANY, [])
    again.close()
    assert (tmp_path / "holdings.db.damaged").read_bytes().startswith(b"not a database")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "holdings.db.damaged").execute("SELECT * FROM object")


def test_reports_go_out_in_messages_that_kahuna_takes(kahuna: ManualKahuna) -> None:
    outbox = Outbox()
    for number in range(100):
        outbox.put(fleet_pb2.Report(id=f"{number}", message="m" * 50_000))
    sizes = []
    while outbox._unsent:
        sizes.append(sum(report.ByteSize() for report in kahuna.loop.run(outbox.take())))
    assert len(sizes) > 4
    assert max(sizes) <= MAX_BYTES
