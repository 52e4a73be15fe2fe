"""An agent against a Kahuna played by hand: it never destroys an object because a batch omits it."""

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
from tests.control_plane import FakeWorker
from tests.fleet.manual_kahuna import ManualKahuna, vnet
from tests.fleet_resources import content, edited
from tests.waiting import until

INCARNATION = "first incarnation"
VNETS = [vnet(number) for number in range(5)]


@pytest.fixture
def kahuna(tmp_path: Path) -> Iterator[ManualKahuna]:
    """A Kahuna whose messages the test writes."""
    manual = ManualKahuna(tmp_path)
    yield manual
    manual.close()


def stored_objects(kahuna: ManualKahuna) -> dict[str, fleet_pb2.Object]:
    """The objects in the agent's store, once it has stopped."""
    holdings = Holdings(kahuna.folder / "agent")
    try:
        return dict(holdings.objects)
    finally:
        holdings.close()


class DestructionRecorder(FakeWorker):
    """A host that records every object it has to destroy."""

    def __init__(self) -> None:
        super().__init__()
        self.destroyed: set[str] = set()

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        super().accept(desired)
        self.destroyed |= {described.id for described in desired.values() if described.gone}


def test_an_incomplete_batch_changes_nothing(kahuna: ManualKahuna) -> None:
    host = DestructionRecorder()
    agent = kahuna.start_agent(host)
    session = kahuna.session()
    session.welcome(INCARNATION)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=VNETS, last=True))
    assert session.ack().refusal == ""
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=[vnet(1, 2, gone=True)]))
    session.send(batch=fleet_pb2.Batch(nonce="2", removed=[VNETS[2].id]))
    session.cut()
    session = kahuna.session()
    assert len(session.welcome(INCARNATION)) == len(VNETS)
    # A batch that Kahuna gave up in the middle for the next one.
    session.send(batch=fleet_pb2.Batch(nonce="3", objects=[vnet(3, 2, gone=True)]))
    session.send(batch=fleet_pb2.Batch(nonce="4", objects=[vnet(4, 2)], last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="4")
    until(lambda: host.wanted[VNETS[4].id].generation == 2, what="the whole batch")
    kahuna.stop(agent)
    assert stored_objects(kahuna) == {one.id: one for one in [*VNETS[:4], vnet(4, 2)]}
    assert host.destroyed == set()


def test_an_empty_batch_removes_nothing(kahuna: ManualKahuna) -> None:
    host = DestructionRecorder()
    agent = kahuna.start_agent(host)
    session = kahuna.session()
    session.welcome(INCARNATION)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=VNETS, last=True))
    session.ack()
    session.send(batch=fleet_pb2.Batch(nonce="2", last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="2")
    kahuna.stop(agent)
    assert stored_objects(kahuna) == {one.id: one for one in VNETS}
    assert host.destroyed == set()


def test_state_of_another_incarnation_is_dropped_without_destroying_objects(kahuna: ManualKahuna) -> None:
    host = DestructionRecorder()
    kahuna.start_agent(host)
    session = kahuna.session()
    assert session.welcome(INCARNATION) == []
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=VNETS, last=True))
    session.ack()
    until(lambda: len(host.wanted) == len(VNETS), what="the slice")
    session.cut()
    session = kahuna.session()
    assert session.welcome("second incarnation") == []
    # Observations of the first incarnation's generations are not reported in the second.
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=[vnet(9)], last=True))
    reported = set()
    while vnet(9).id not in reported:
        request = session.receive()
        reported |= {report.id for report in request.reports.reports}
    assert reported == {vnet(9).id}
    until(lambda: list(host.wanted) == [vnet(9).id], what="the new slice")
    assert host.destroyed == set()


def test_an_agent_works_from_its_store_while_kahuna_is_unreachable(kahuna: ManualKahuna) -> None:
    agent = kahuna.start_agent(FakeWorker())
    session = kahuna.session()
    session.welcome(INCARNATION)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=VNETS, last=True))
    session.ack()
    kahuna.stop(agent)
    host = FakeWorker()
    kahuna.start_agent(host)
    # Kahuna has not answered its call yet.
    until(lambda: len(host.wanted) == len(VNETS), what="the stored slice")
    holdings = kahuna.session().welcome(INCARNATION)
    assert {(one.id, one.generation) for one in holdings} == {(one.id, one.generation) for one in VNETS}


class RefusingHost(DestructionRecorder):
    """A host of an older version, which fails on one vnet: with a refusal, or with an unforeseen exception."""

    def __init__(self, refused_name: str, error: type[Exception] = Refused) -> None:
        super().__init__()
        self.refused_name, self.error = refused_name, error

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        if any(content(described).name == self.refused_name for described in desired.values()):
            raise self.error(self.refused_name)
        super().accept(desired)


@pytest.mark.parametrize("error", [Refused, KeyError])
def test_a_slice_stored_by_a_newer_version_is_requested_again_without_destroying_objects(
    kahuna: ManualKahuna, error: type[Exception]
) -> None:
    newer = kahuna.start_agent(FakeWorker())
    session = kahuna.session()
    session.welcome(INCARNATION)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=VNETS, last=True))
    session.ack()
    kahuna.stop(newer)
    host = RefusingHost("vnet-3", error)
    agent = kahuna.start_agent(host)
    session = kahuna.session()
    assert {(one.id, one.generation) for one in session.welcome(INCARNATION)} == {(one.id, 0) for one in VNETS}
    # Kahuna does not know these generations: it sends the whole slice and names the objects it does not know.
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=VNETS[1:], removed=[VNETS[0].id], last=True))
    assert "vnet-3" in session.ack().refusal
    better = [*VNETS[1:3], vnet(9)]
    removed = [one.id for one in VNETS if one not in better]
    session.send(batch=fleet_pb2.Batch(nonce="3", objects=better, removed=removed, last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="3")
    until(lambda: set(host.wanted) == {one.id for one in better}, what="the better slice")
    session.cut()
    holdings = kahuna.session().welcome(INCARNATION)
    assert {(one.id, one.generation) for one in holdings} == {(one.id, 1) for one in better}
    kahuna.stop(agent)
    assert stored_objects(kahuna) == {one.id: one for one in better}
    assert host.destroyed == set()


def test_the_worker_sees_a_stored_batch_when_sending_its_ack_fails(
    kahuna: ManualKahuna, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE_S", 60)
    write = Session._write

    async def lose_acks(self: Session, request: fleet_pb2.ConnectRequest) -> None:
        if request.WhichOneof("message") == "ack":
            raise TimeoutError("the connection is dead")
        await write(self, request)

    monkeypatch.setattr(Session, "_write", lose_acks)

    class NotifiedWorker(FakeWorker):
        """Reads its slice only when it is notified of a change."""

        async def run(self, feed: Feed) -> None:
            while True:
                self.wanted = dict(feed.desired())
                await feed.wait_for_change(60)

    host = NotifiedWorker()
    kahuna.start_agent(host)
    session = kahuna.session()
    session.welcome(INCARNATION)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=VNETS, last=True))
    until(lambda: len(host.wanted) == len(VNETS), timeout=5, what="the stored slice")


def test_an_exception_in_the_worker_refuses_the_batch_and_the_agent_goes_on(kahuna: ManualKahuna) -> None:
    class FailingWorker(FakeWorker):
        def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
            if vnet(9).id in desired:
                raise KeyError("vnet-9")

    agent = kahuna.start_agent(FailingWorker())
    session = kahuna.session()
    session.welcome(INCARNATION)
    session.send(batch=fleet_pb2.Batch(nonce="1", objects=[vnet(9)], last=True))
    assert session.ack().refusal == "the agent failed on it, its log says where: KeyError: 'vnet-9'"
    session.send(batch=fleet_pb2.Batch(nonce="2", objects=VNETS, last=True))
    assert session.ack() == fleet_pb2.Ack(nonce="2")
    assert not agent.done()


def test_an_agent_dials_again_when_its_stream_ends_during_a_write(
    kahuna: ManualKahuna, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr("kowa.runtime.agent.LONGEST_PAUSE_S", 0.02)

    class ReportingWorker(FakeWorker):
        """Reports all the time."""

        async def run(self, feed: Feed) -> None:
            for number in itertools.count():
                feed.report(fleet_pb2.Report(id=VNETS[0].id, message=f"{number}"))
                await asyncio.sleep(0)

    agent = kahuna.start_agent(ReportingWorker())
    for round_ in range(20):
        session = kahuna.session()
        session.welcome(INCARNATION)
        session.send(batch=fleet_pb2.Batch(nonce=f"{round_}", objects=[vnet(round_)], last=True))
        session.ack()
        session.cut()
    kahuna.session()
    assert not agent.done()


def test_two_agents_cannot_use_one_state_folder(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with lock_state(tmp_path / "state"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        with pytest.raises(SystemExit, match=r"another agent uses .*state; stop it first"):
            serve(FakeWorker(), AgentSettings(servers=(), ca=nothing, token=nothing, state=tmp_path / "state"))
    try:
        with lock_state(tmp_path / "state"):
            """A child process that a dead agent left behind does not hold the lock."""
    finally:
        child.kill()
        child.wait()


def test_a_full_disk_refuses_a_change_and_keeps_the_stored_objects(tmp_path: Path) -> None:
    holdings = Holdings(tmp_path)
    holdings.store(VNETS, [])
    limit = holdings._connection.execute("PRAGMA page_count").fetchone()[0]
    holdings._connection.execute(f"PRAGMA max_page_count = {limit}")
    large = vnet(9)
    with edited(large) as resource:
        resource.description = "x" * 100_000
    with pytest.raises(OSError, match="the agent can't store it: database or disk is full"):
        holdings.store([large], [VNETS[0].id])
    assert holdings.objects == {one.id: one for one in VNETS}
    holdings._connection.execute("PRAGMA max_page_count = 100000")
    holdings.store([large], [VNETS[0].id])
    holdings.close()
    reopened = Holdings(tmp_path)
    assert set(reopened.objects) == {large.id, *(one.id for one in VNETS[1:])}
    reopened.close()


def test_a_damaged_store_is_moved_aside_and_the_agent_starts_empty(tmp_path: Path) -> None:
    holdings = Holdings(tmp_path)
    holdings.start_incarnation(INCARNATION)
    holdings.store(VNETS, [])
    holdings.close()
    (tmp_path / "holdings.db").write_bytes(b"not a database any more" * 100)
    reopened = Holdings(tmp_path)
    assert (reopened.objects, reopened.incarnation) == ({}, "")
    reopened.store(VNETS, [])
    reopened.close()
    assert (tmp_path / "holdings.db.damaged").read_bytes().startswith(b"not a database")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "holdings.db.damaged").execute("SELECT * FROM object")


def test_reports_are_sent_in_messages_within_kahunas_size_limit(kahuna: ManualKahuna) -> None:
    outbox = Outbox()
    for number in range(100):
        outbox.put(fleet_pb2.Report(id=f"{number}", message="m" * 50_000))
    sizes = []
    while outbox._unsent:
        sizes.append(sum(report.ByteSize() for report in kahuna.loop.run(outbox.take())))
    assert len(sizes) > 4
    assert max(sizes) <= MAX_BYTES
