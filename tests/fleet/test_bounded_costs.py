"""What one agent, or one that pretends to be an agent, may cost: reading pauses, sign-ins are few transactions."""

import asyncio
import socket
import threading
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from kahuna import serve
from kahuna.fleet import reports, service, session, sign_ins
from kahuna.fleet.pace import Bucket, Pace
from kahuna.fleet.session import in_slices
from kahuna.kinds import command
from kahuna.store.transaction import Transaction
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, kaktus_pb2
from tests.control_plane import ControlPlane
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import AgentStream
from tests.fleet.many_agents import connected_agents, create_hosts
from tests.fleet.test_reports_bounds import outside_slice
from tests.site import Site
from tests.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_those_who_are_refused_come_back_spread_over_time() -> None:
    clock = Clock()
    pace = Pace(per_second=10, least_s=15, clock=clock)
    first = [pace.next_pause() for _ in range(1000)]
    assert first == pytest.approx([15 + number / 10 for number in range(1000)])
    clock.now = 1000
    assert pace.next_pause() == 15
    assert max(pace.next_pause() for _ in range(10_000)) == 600, "nobody waits for ever"
    short = Pace(per_second=10, least_s=15, most_s=60, clock=clock)
    assert max(short.next_pause() for _ in range(10_000)) == 60


def test_the_sign_ins_of_a_large_site_are_not_looked_through_at_each_of_them(
    cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Bucket] = []
    monkeypatch.setattr(Bucket, "is_full", property(looked.append))
    admitting = sign_ins.SignIns(cloud.kahuna.store)
    for number in range(5 * sign_ins.MAX_WAITING):
        admitting.admit(f"agent-{number}")
    assert 0 < len(looked) < 10 * sign_ins.MAX_WAITING


def test_a_bucket_lets_a_burst_pass_and_then_so_much_a_second() -> None:
    clock = Clock()
    bucket = Bucket(100, 10, clock)
    assert [bucket.spend(60), bucket.spend(40), bucket.spend(5)] == [0, 0, 0.5]
    clock.now = 1
    assert bucket.spend(5) == 0
    assert not bucket.is_full
    clock.now = 20
    assert bucket.is_full
    ones = Bucket(2, 0.1, clock)
    assert [ones.take(), ones.take(), ones.take(), ones.take()] == [0, 0, 10, 10], "a refused one costs nothing"


def test_others_get_their_turn_while_a_long_message_is_checked() -> None:
    async def run() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(others())
        items = [item async for item in in_slices(range(session.SLICE_SIZE * 10))]
        assert items == list(range(session.SLICE_SIZE * 10))
        assert turns >= 10
        running.cancel()

    asyncio.run(run())


def flood(stream: AgentStream, messages: int, reports: int) -> None:
    """Sends reports of things that nobody knows."""
    ids = [fleet_pb2.Report(id=str(uuid.uuid4())) for _ in range(reports)]
    for _ in range(messages):
        stream.send(reports=fleet_pb2.Reports(reports=ids))


def test_an_agent_that_sends_too_much_is_read_no_further_and_delays_nobody(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BURST_BYTES", 100_000)
    monkeypatch.setattr(session, "BYTES_PER_SECOND", 1000)
    _, secret = site.cloud.add_agent("agent-2")
    stream, other = dial(site.secret), dial(secret)
    stream.sign_in()
    stream.ack(stream.batch())
    other.sign_in()
    flooding = site.cloud.kahuna.fleet.sessions[site.agent.meta.id]
    flood(stream, messages=20, reports=1000)  # 60 kB each
    until(lambda: outside_slice(flooding) >= 1000, what="the first of them")
    counts = []
    for number in range(20):
        other.send(reports=fleet_pb2.Reports(reports=[fleet_pb2.Report(id=f"unknown-{number}")]))
        others = site.cloud.kahuna.fleet.sessions
        until(lambda: any(outside_slice(one) > number for one in others.values() if one is not flooding), what="other")  # noqa: B023
        counts.append(outside_slice(flooding))
    assert max(counts) <= 3000, "the rest of the flood waits in its connection"


def test_more_reports_than_the_limit_in_one_message_end_the_session(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_REPORTS", 10)
    stream = dial(site.secret)
    stream.sign_in()
    flood(stream, messages=1, reports=11)
    assert stream.goodbye().message == "there are 11 reports in one message; send 10 at most"


def test_many_agents_sign_in_and_leave_in_few_transactions(
    cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = cloud.add_zone(cloud.add_region())
    secrets = create_hosts(cloud, zone.meta.id, 48)
    applied, apply = list[int](), sign_ins._apply

    def record(tx: Transaction, changes: Sequence[Any]) -> Any:
        applied.append(len(changes))
        return apply(tx, changes)

    monkeypatch.setattr(sign_ins, "_apply", record)
    monkeypatch.setattr(sign_ins, "INTERVAL_S", 0.2)
    agents = cloud.client.of(agent_pb2.Agent)
    with connected_agents(cloud, secrets):
        assert (sum(applied), max(applied)) == (48, sign_ins.MAX_AT_ONCE)
        assert len(applied) < 12
        assert len(cloud.fleet_sessions()) == 48
        applied.clear()
    until(lambda: not cloud.fleet_sessions(), what="OFFLINE")
    assert sum(applied) == 48
    assert len(applied) < 12
    assert {agent.status.epoch for agent in agents.list()} == {1}


def test_a_sign_in_without_commands_takes_one_transaction_and_one_for_its_ack(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[str] = []
    store = site.cloud.kahuna.store
    transact = store._transact

    def record(work: Any) -> Any:
        works.append(getattr(work, "func", work).__name__)
        return transact(work)

    monkeypatch.setattr(store, "_transact", record)
    for name in ("recall", "take"):
        monkeypatch.setattr(command, name, lambda *_: pytest.fail("there are no commands"))
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    until(lambda: site.client.agents.get(site.agent.meta.id).status.held_revision, what="the ack")
    assert [work for work in works if work in ("_apply", "_store")] == ["_apply", "_store"]


def test_a_command_added_while_its_agent_signs_in_is_sent(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = site.running_on_lost_host()
    stored, go_on = threading.Event(), threading.Event()
    opened = sign_ins.SignIns.open

    async def wait_after(self: sign_ins.SignIns, sign_in: sign_ins.SignIn) -> sign_ins.Opened:
        result = await opened(self, sign_in)
        stored.set()
        await asyncio.to_thread(go_on.wait, 20)
        return result

    monkeypatch.setattr(sign_ins.SignIns, "open", wait_after)
    stream = dial(site.secret)
    stream.send(hello=fleet_pb2.Hello(protocol=1))
    assert stored.wait(20)
    started = site.client.instances.begin("reset", web.meta.id)
    go_on.set()
    stream.receive()
    stream.send(holdings=fleet_pb2.Holdings(last=True))
    stream.ack(stream.batch())
    assert stream.receive().command.id == started.operation_id


def test_a_sign_in_that_cannot_be_stored_fails_no_other(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare, secret = site.cloud.add_agent("agent-2")
    monkeypatch.setattr(sign_ins, "INTERVAL_S", 0.3)  # both in one transaction
    report = Transaction.report

    def fail(tx: Transaction, kind: str, message: Any) -> Any:
        if kind == "Agent" and message.meta.id == spare.meta.id:
            raise OSError("no such luck")
        return report(tx, kind, message)

    monkeypatch.setattr(Transaction, "report", fail)
    bad, good = dial(secret), dial(site.secret)
    for stream in (bad, good):
        stream.send(hello=fleet_pb2.Hello(protocol=1))
    assert good.receive().welcome.epoch == 1
    assert bad.goodbye().farewell == fleet_pb2.FAREWELL_INTERNAL


def test_silent_connections_are_closed_and_keep_nobody_from_signing_in(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = site.cloud
    cloud.stop()
    name = "grpc.server_handshake_timeout_ms"
    assert (name, 10_000) in serve.KEEPALIVE
    monkeypatch.setattr(serve, "KEEPALIVE", (*(option for option in serve.KEEPALIVE if option[0] != name), (name, 500)))
    cloud.start()
    silent = [socket.create_connection(("127.0.0.1", cloud.kahuna.fleet_port)) for _ in range(300)]
    try:
        assert dial(site.secret).sign_in().epoch == 1
        for connection in silent:
            connection.settimeout(20)
            assert connection.recv(1) == b"", "Kahuna closes it"
    finally:
        for connection in silent:
            connection.close()


def test_a_long_list_of_removed_ids_is_sent_in_parts_that_let_others_speak(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_BATCH_ITEMS", 10)
    stream = dial(site.secret)
    unknown = [fleet_pb2.Holding(id=str(uuid.uuid4()), generation=1) for _ in range(35)]
    stream.sign_in(incarnation=site.cloud.kahuna.store.view.incarnation, holdings=unknown)
    parts = stream.batch()
    assert max(len(part.removed) + len(part.objects) for part in parts) == 10
    assert {id_ for part in parts for id_ in part.removed} == {one.id for one in unknown}
    assert len({part.nonce for part in parts}) == 1
    stream.ack(parts)
    until(lambda: site.client.agents.get(site.agent.meta.id).status.held_revision, what="the ack")


def test_a_report_of_a_host_that_is_far_too_large_is_not_read(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_cut_node", lambda *_: pytest.fail("it is read"))
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    huge = resources.pack(kaktus_pb2.Kaktus(status=kaktus_pb2.KaktusStatus(cpu_model="x" * reports.MAX_NODE_BYTES)))
    failed = fleet_pb2.Report(
        id=site.host.meta.id, observed_generation=1, outcome=fleet_pb2.OUTCOME_APPLIED, resource=huge
    )
    stream.send(reports=fleet_pb2.Reports(reports=[failed]))
    until(lambda: site.client.kaktuses.get(site.host.meta.id).meta.conditions, what="what is wrong with it")
    (condition,) = site.client.kaktuses.get(site.host.meta.id).meta.conditions
    assert "and at most 65536 are taken" in condition.message
