"""Limits on one agent's reports, so that it can't slow or fail other agents."""

import asyncio
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from kahuna import serve
from kahuna.fleet import reports, session
from kahuna.fleet.checks import Reason
from kahuna.fleet.session import Session
from kahuna.kinds.kind import Kinds
from kahuna.store.transaction import Transaction
from kowa import errors, resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, kaktus_pb2, meta_pb2, template_pb2, volume_pb2
from tests.control_plane import GIB, ControlPlane
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import AgentStream
from tests.site import Site
from tests.waiting import until

APPLIED = fleet_pb2.OUTCOME_APPLIED


class Transactions:
    """Records the transactions that store reports; `block` stops the database's writer until `unblock`."""

    def __init__(self, cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
        self._cloud, self._gate = cloud, threading.Event()
        self.sizes: list[int] = []
        self.order: list[str] = []
        self.pending: dict[Any, Any] = {}
        self.waiting: Mapping[str, int] = {}
        self.collected: set[reports.Reports] = set()
        store, put = reports._store, reports.Reports.put

        def record_store(tx: Transaction, kinds: Kinds, pending: Sequence[reports.Pending]) -> None:
            self.sizes.append(len(pending))
            self.order.append("reports")
            store(tx, kinds, pending)

        def record_put(collected: reports.Reports, session: Session, message: Any) -> None:
            put(collected, session, message)
            self.collected.add(collected)
            self.pending, self.waiting = collected._pending, collected._waiting

        monkeypatch.setattr(reports, "_store", record_store)
        monkeypatch.setattr(reports.Reports, "put", record_put)

    def block(self) -> None:
        """Stops all transactions."""
        self._gate.clear()
        self._cloud.loop.start(self._cloud.kahuna.store.run(lambda _: self._gate.wait(20)))

    def change(self) -> "asyncio.Task[None]":
        """Starts another caller's change."""
        return self._cloud.loop.start(self._cloud.kahuna.store.run(lambda _: self.order.append("change")))

    def unblock(self) -> None:
        """Lets the waiting transactions run."""
        self._gate.set()


@pytest.fixture
def transactions(cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Transactions:
    """Records all transactions from now on."""
    return Transactions(cloud, monkeypatch)


def templates(site: Site, count: int) -> list[str]:
    """Creates templates in the slice of the site's agent; returns their ids."""
    sha256 = "0" * 64
    wanted = (
        template_pb2.Template(storage_pool=site.pool.meta.id, name=f"t{number}", source="t.qcow2", sha256=sha256)
        for number in range(count)
    )
    return [site.client.templates.begin_create(one).resource.meta.id for one in wanted]


def template_reports(ids: Iterable[str], *, padding: int = 0) -> fleet_pb2.Reports:
    """A message that reports templates as ready."""
    observed = template_pb2.Template(status=template_pb2.TemplateStatus(size=7, progress=100))
    if padding:
        observed.meta.conditions.add(type="Padded", message="x" * padding)
    resource = resources.pack(observed)
    return fleet_pb2.Reports(
        reports=[
            fleet_pb2.Report(id=id_, observed_generation=1, outcome=APPLIED, resource=resource) for id_ in ids
        ]
    )  # fmt: skip


def signed_in(site: Site, dial: Dial) -> AgentStream:
    """The host's agent, played by hand, in step."""
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    return stream


def outside_slice(session: Session) -> int:
    """The number of reports that were dropped because they are of nothing in the agent's slice."""
    return session.dropped[Reason.OUTSIDE_SLICE].count if Reason.OUTSIDE_SLICE in session.dropped else 0


def ready(site: Site, ids: Iterable[str]) -> bool:
    """Whether all these templates are ready."""
    return all(site.client.templates.get(id_).meta.state == meta_pb2.STATE_READY for id_ in ids)


def test_reports_outside_the_slice_are_counted_not_stored(site: Site, dial: Dial, transactions: Transactions) -> None:
    """From an agent without a node, and from one with a node, whose own report in the same message is stored."""
    spare, secret = site.cloud.add_agent("agent-2")
    unbound, bound = dial(secret), signed_in(site, dial)
    unbound.sign_in()
    invented = [str(uuid.uuid4()) for _ in range(1000)]
    sessions = site.cloud.kahuna.fleet.sessions
    with capture_logs() as logged:
        for stream in (unbound, bound):
            stream.send(reports=template_reports(invented))
            stream.send(reports=template_reports([site.template.meta.id, *invented]))
        until(lambda: outside_slice(sessions[site.agent.meta.id]) == 2000, what="the bound agent's")
        until(lambda: outside_slice(sessions[spare.meta.id]) == 2001, what="the other's")
    until(lambda: ready(site, [site.template.meta.id]), what="the report inside the slice")
    assert sum(transactions.sizes) == 3  # two acks and that one
    assert 0 not in transactions.sizes
    outside = [entry["agent"] for entry in logged if entry["event"] == "report.dropped"]
    assert sorted(outside) == sorted([spare.meta.id, site.agent.meta.id])  # each once, in any order


def test_many_reports_are_stored_in_small_transactions_with_other_changes_in_between(
    site: Site, dial: Dial, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MAX_TRANSACTION_SIZE", 5)
    ids = templates(site, 30)
    stream = signed_in(site, dial)
    until(lambda: transactions.sizes, what="the ack")
    transactions.order.clear()
    transactions.block()
    stream.send(reports=template_reports(ids))
    until(lambda: len(transactions.pending) == 25, what="one transaction running and five waiting")
    change = transactions.change()
    transactions.unblock()
    until(change.done, what="the change")
    until(lambda: ready(site, ids), what="all that was reported")
    assert transactions.order == ["reports", "change", *["reports"] * 5]
    assert max(transactions.sizes) == 5


def test_an_agents_stream_is_not_read_while_too_many_of_its_reports_wait_to_be_stored(
    site: Site, dial: Dial, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MAX_WAITING_BYTES", 10_000)
    ids = templates(site, 20)
    _, secret = site.cloud.add_agent("agent-2")
    stream, other = signed_in(site, dial), dial(secret)
    other.sign_in()
    transactions.block()
    for id_ in ids:
        stream.send(reports=template_reports([id_], padding=2000))
    until(lambda: transactions.waiting.get(site.agent.meta.id, 0) > 10_000, what="as much as may wait")
    before = site.cloud.kahuna.fleet.sessions[site.agent.meta.id].last_message_at
    other.send(reports=fleet_pb2.Reports())
    sessions = site.cloud.kahuna.fleet.sessions.values()
    until(lambda: max(one.last_message_at for one in sessions) > before, what="the other agent")
    assert transactions.waiting[site.agent.meta.id] < 13_000
    transactions.unblock()
    until(lambda: ready(site, ids), what="all that was reported")


def test_a_too_long_report_fails_the_operation_with_the_reason(site: Site, dial: Dial) -> None:
    stream = signed_in(site, dial)
    disk = volume_pb2.Volume(project=site.project.meta.id, name="d", storage_pool=site.pool.meta.id, size=GIB)
    started = site.client.volumes.begin_create(disk)
    stream.ack(stream.batch())
    endless = volume_pb2.Volume(meta=meta_pb2.Meta(conditions=[meta_pb2.Condition(type="X", message="x" * 65_536)]))
    report = fleet_pb2.Report(
        id=started.resource.meta.id, observed_generation=1, outcome=APPLIED, resource=resources.pack(endless)
    )
    stream.send(reports=fleet_pb2.Reports(reports=[report]))
    with pytest.raises(errors.OperationFailed, match="bytes of it, and at most 65536 are taken"):
        site.client.operations.wait(started.operation_id, 60)
    volume = site.client.volumes.get(started.resource.meta.id)
    assert volume.meta.state == meta_pb2.STATE_ERROR
    assert volume.ByteSize() < 1000


def test_a_long_list_of_strangers_is_truncated_with_a_count_of_the_rest(site: Site, dial: Dial) -> None:
    """As after a restore of the database: the rest of the host's status is stored all the same."""
    stream = signed_in(site, dial)
    strangers = [f"file {site.pool.meta.id}/{uuid.uuid4()}" for _ in range(2000)]
    flags, endless = [f"flag{number}" for number in range(200)], [f"{number}," for number in range(9000)]
    status = kaktus_pb2.KaktusStatus(cpus=8, memory=GIB, strangers=strangers, cpu_flags=flags, cpu_model="x" * 9000)
    status.drift.extend(strangers)
    status.numa_nodes.add(cpus="".join(endless))
    report = fleet_pb2.Report(
        id=site.host.meta.id,
        observed_generation=1,
        outcome=APPLIED,
        resource=resources.pack(kaktus_pb2.Kaktus(status=status)),
    )
    stream.send(reports=fleet_pb2.Reports(reports=[report]))
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    stored = site.client.kaktuses.get(site.host.meta.id).status
    assert (stored.cpu_flags, stored.cpu_model, list(stored.numa_nodes)) == (flags, "", [])
    listed = stored.strangers
    assert list(listed[:-1]) == strangers[: len(listed) - 1]
    assert listed[-1] == f"and {2001 - len(listed)} more"
    assert 500 < len(listed) < 700
    assert stored.drift[-1] == f"and {2001 - len(stored.drift)} more"


@pytest.mark.parametrize(
    ("holdings", "message"),
    [
        ([str(number) for number in range(11)], "the agent says it holds more than 10 objects; stop it, empty its"),
        (["x" * 37], "the agent holds something with an id of 37 characters"),
    ],
)
def test_an_agent_that_holds_more_than_any_slice_is_refused(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch, holdings: list[str], message: str
) -> None:
    monkeypatch.setattr(session, "MAX_HOLDINGS", 10)
    stream = dial(site.secret)
    stream.sign_in(
        incarnation=site.cloud.kahuna.store.view.incarnation,
        holdings=[fleet_pb2.Holding(id=id_, generation=1) for id_ in holdings],
    )
    code, details = stream.status()
    assert code == "INVALID_ARGUMENT"
    assert message in details


def test_a_long_version_is_truncated_in_the_log(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    with capture_logs() as logged:
        stream.send(hello=fleet_pb2.Hello(protocol=1, version="v" * 100_000))
        assert stream.receive().welcome.epoch
    assert [entry["version"] for entry in logged if entry["event"] == "session.opened"] == ["v" * 64]


def test_an_ack_that_cannot_be_stored_does_not_prevent_others(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare, secret = site.cloud.add_agent("agent-2")
    monkeypatch.setattr(reports, "STORE_INTERVAL_S", 0.3)  # both in one transaction
    report = Transaction.report

    def fail(tx: Transaction, kind: str, message: Any) -> Any:
        if kind == "Agent" and message.meta.id == spare.meta.id and message.status.held_revision:
            raise OSError("no such luck")
        return report(tx, kind, message)

    monkeypatch.setattr(Transaction, "report", fail)
    with capture_logs() as logged:
        dial(secret).sign_in()
        signed_in(site, dial)
        agents = site.client.of(agent_pb2.Agent)
        until(lambda: agents.get(site.agent.meta.id).status.held_revision, what="the other's ack")
    assert [entry["agent"] for entry in logged if entry["event"] == "ack.failed"] == [spare.meta.id]


def test_a_single_report_that_cannot_be_stored_at_once_is_tried_again(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = signed_in(site, dial)
    until(lambda: site.client.agents.get(site.agent.meta.id).status.held_revision, what="the ack")
    report, failed = Transaction.report, list[str]()

    def fail_once(tx: Transaction, kind: str, message: Any) -> Any:
        if kind == "Template" and not failed:
            failed.append(message.meta.id)
            raise OSError("no such luck")
        return report(tx, kind, message)

    monkeypatch.setattr(Transaction, "report", fail_once)
    stream.send(reports=template_reports([site.template.meta.id]))
    until(lambda: ready(site, [site.template.meta.id]), what="the report, stored by the second attempt")
    assert failed == [site.template.meta.id]


def test_an_ack_is_stored_before_waiting_reports_and_agents_are_locked_last(
    site: Site, dial: Dial, transactions: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who changes a host locks it before its agent: the other way round, each would wait for the other."""
    monkeypatch.setattr(reports, "MAX_TRANSACTION_SIZE", 5)
    made = templates(site, 30)
    stream = signed_in(site, dial)
    until(lambda: site.client.agents.get(site.agent.meta.id).status.held_revision, what="the ack")
    report, stored = Transaction.report, list[str]()

    def record(tx: Transaction, kind: str, message: Any) -> Any:
        stored.append(kind)
        return report(tx, kind, message)

    monkeypatch.setattr(Transaction, "report", record)
    transactions.block()
    stream.send(reports=template_reports(made))
    until(lambda: len(transactions.pending) == 25, what="one round under way and five that wait")
    (collected,) = transactions.collected
    waiting = dict(transactions.waiting)

    async def ack() -> None:
        collected.put(site.cloud.kahuna.fleet.sessions[site.agent.meta.id], fleet_pb2.Ack(refusal="no"))

    site.cloud.loop.run(ack())
    assert transactions.waiting == waiting, "acks count against no limit of reports"
    transactions.unblock()
    until(lambda: ready(site, made), what="all that was reported")
    assert stored[:10] == [*["Template"] * 9, "Agent"]


def test_a_connection_without_a_call_is_closed(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = site.cloud
    cloud.stop()
    monkeypatch.setattr(serve, "IDLE", (("grpc.max_connection_idle_ms", 500),))
    cloud.start()
    stream = signed_in(site, dial)
    credentials = grpc.ssl_channel_credentials((cloud.folder / "ca.pem").read_bytes())

    async def idle() -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.secure_channel(cloud.fleet_endpoint, credentials, options=options) as channel:
            await channel.channel_ready()
            await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 60)

    cloud.loop.run(idle())
    # A connection with a call is not idle, even without messages.
    assert stream.receives_nothing()
