"""Sessions: which agents get one, how it ends, and that other agents are not affected."""

import asyncio
import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from kahuna.fleet import fleet, service
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.session import Holder, Session
from kahuna.security import certificates
from kowa import errors, resources
from kowa.client import Client
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime import session
from kowa.v2 import agent_pb2, kaktus_pb2, operation_pb2, template_pb2
from tests.control_plane import GIB, ControlPlane, FakeWorker
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import held, objects
from tests.site import Site
from tests.waiting import until

LARGEST = 1 << 20


def agent_status(site: Site) -> agent_pb2.AgentStatus:
    """The agent's status in the API."""
    return site.client.of(agent_pb2.Agent).get(site.agent.meta.id).status


def memory_report(site: Site, memory: int) -> dict[str, fleet_pb2.Reports]:
    """A message that reports the host's memory."""
    status = kaktus_pb2.KaktusStatus(cpus=1, memory=memory)
    report = fleet_pb2.Report(
        id=site.host.meta.id,
        observed_generation=1,
        resource=resources.pack(kaktus_pb2.Kaktus(status=status)),
        outcome=fleet_pb2.OUTCOME_APPLIED,
    )
    return {"reports": fleet_pb2.Reports(reports=[report])}


def memory(site: Site) -> int:
    return site.client.of(kaktus_pb2.Kaktus).get(site.host.meta.id).status.memory


def test_a_newer_session_of_an_agent_ends_the_older_one_with_the_reason(site: Site, dial: Dial) -> None:
    older, newer = dial(site.secret), dial(site.secret)
    first = older.sign_in()
    older.ack(older.batch())
    second = newer.sign_in()
    assert second.epoch == first.epoch + 1
    assert older.status() == ("ABORTED", "superseded by a newer session of the same agent")
    newer.ack(newer.batch())
    newer.send(**memory_report(site, 7))
    until(lambda: memory(site) == 7, what="the newer session's report")
    assert agent_status(site).stream == agent_pb2.STREAM_ONLINE
    assert agent_status(site).epoch == second.epoch


def test_reports_of_an_older_session_are_ignored_once_there_is_a_newer(site: Site, dial: Dial) -> None:
    """The report still waits to be stored when the newer session increments the epoch."""
    older, newer = dial(site.secret), dial(site.secret)
    older.sign_in()
    older.ack(older.batch())
    # Afterwards nothing waits to be stored; the report would go with it, before the newer session.
    held = until(lambda: agent_status(site).held_revision, what="the older session's ack")
    reports, wait = "kahuna.fleet.reports.STORE_INTERVAL_S", 0.5
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reports, wait)
        older.send(**memory_report(site, 13))
        newer.sign_in()
        newer.ack(newer.batch())
        until(lambda: agent_status(site).held_revision > held, what="the newer session's ack and the older report")
    assert memory(site) == 0


def test_revoking_a_token_ends_its_session_at_once_under_load(site: Site, dial: Dial) -> None:
    site.connect_host()
    spare, secret = site.cloud.add_agent("agent-2")
    stream = dial(secret)
    stream.sign_in()
    stop, numbers = threading.Event(), itertools.count()
    calls: list[tuple[float, float]] = []

    def load() -> None:
        while not stop.is_set():
            started = time.monotonic()
            wanted = template_pb2.Template(
                storage_pool=site.pool.meta.id, name=f"t{next(numbers)}", source="t.qcow2", sha256="0" * 64
            )
            site.client.of(template_pb2.Template).begin_create(wanted)
            calls.append((started, time.monotonic()))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        token = next(site.client.agent_tokens.list(filter=f'agent = "{spare.meta.id}"'))
        until(lambda: len(list(site.client.templates.list())) > 20, what="load")
        site.client.agent_tokens.begin_delete(token.meta.id)
        revoked = time.monotonic()
        assert stream.status() == ("UNAUTHENTICATED", "its token has been revoked; use one that is valid")
        took = time.monotonic() - revoked
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # On a loaded machine, allow as much extra time as the slowest concurrent call.
    assert took < 1 + max(finished - started for started, finished in calls if finished > revoked)
    assert dial(secret).status() == (
        "UNAUTHENTICATED", "the key is unknown or has been revoked; use one that is valid"
    )  # fmt: skip


def test_a_token_revoked_between_the_call_and_the_hello_opens_no_session(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted, hello = threading.Event(), service._hello

    async def listen(requests: service.Requests) -> fleet_pb2.Hello:
        accepted.set()
        return await hello(requests)

    monkeypatch.setattr(service, "_hello", listen)
    stream = dial(site.secret)
    assert accepted.wait(60)
    token = next(site.client.agent_tokens.list(filter=f'agent = "{site.agent.meta.id}"'))
    site.client.agent_tokens.delete(token.meta.id)
    stream.send(hello=fleet_pb2.Hello(protocol=1))
    assert stream.status() == ("UNAUTHENTICATED", "the key has been revoked; use one that is valid")
    assert agent_status(site).epoch == 0


def test_a_message_may_be_as_long_as_the_limit_and_not_a_byte_longer(site: Site, dial: Dial) -> None:
    _, other = site.cloud.add_agent("agent-2")
    bystander, stream = dial(other), dial(site.secret)
    bystander.sign_in()
    assert stream.sign_in().max_message == LARGEST
    stream.ack(stream.batch())

    def padded(size: int) -> fleet_pb2.Reports:
        report = fleet_pb2.Report(id="x")
        whole = fleet_pb2.ConnectRequest(reports=fleet_pb2.Reports(reports=[report]))
        while (missing := size - whole.ByteSize()) > 0:
            whole.reports.reports[0].message += "m" * max(1, missing - 16)
        return whole.reports

    stream.send(reports=padded(LARGEST))
    stream.send(**memory_report(site, 5))
    until(lambda: memory(site) == 5, what="the report after the longest message")
    stream.send(reports=padded(LARGEST + 1))
    code, details = stream.status()
    assert (code, details.partition(" (")[0]) == ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max")
    assert bystander.receives_nothing()


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (0, "the agent speaks protocol 0, this Kahuna speaks 1; upgrade the agent"),
        (2, "the agent speaks protocol 2, this Kahuna speaks 1; upgrade Kahuna first, then its agents"),
    ],
)
def test_another_protocol_is_refused_with_the_remedy(site: Site, dial: Dial, protocol: int, message: str) -> None:
    stream = dial(site.secret)
    stream.send(hello=fleet_pb2.Hello(protocol=protocol))
    assert stream.status() == ("INVALID_ARGUMENT", message)
    assert agent_status(site).epoch == 0


def test_the_first_message_must_be_a_hello(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    stream.send(ack=fleet_pb2.Ack(nonce="x"))
    assert stream.status() == ("INVALID_ARGUMENT", "the first message must be a hello")


def test_an_agent_that_trusts_another_ca_does_not_connect(site: Site, dial: Dial, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    certificates.ensure(elsewhere, ["localhost"])
    code, details = dial(site.secret, ca=elsewhere / "ca.pem").status()
    assert code == "UNAVAILABLE"
    assert "certificate" in details
    assert agent_status(site).epoch == 0


@pytest.mark.parametrize("whose", ["nobody's", "unknown", "the admin's"])
def test_only_an_agent_token_opens_the_fleet_port(site: Site, dial: Dial, whose: str) -> None:
    secret, code, message = {
        "nobody's": ("", "UNAUTHENTICATED", "no key was sent; send `authorization: Bearer <key>`"),
        "unknown": (
            "kowa_agent_000000000000_" + "0" * 64,
            "UNAUTHENTICATED",
            "the key is unknown or has been revoked; use one that is valid",
        ),
        "the admin's": (site.cloud.key, "PERMISSION_DENIED", "admin may not call /kowa.fleet.v1.FleetService/Connect"),
    }[whose]
    assert dial(secret).status() == (code, message)


def test_an_agent_token_is_denied_by_the_api(site: Site) -> None:
    agent = Client(site.cloud.settings.api, key=site.secret, insecure=True)
    with agent, pytest.raises(errors.Denied) as refused:
        agent.kaktuses.get(site.host.meta.id)
    assert refused.value.reason == "PERMISSION_DENIED"


def test_an_agent_without_a_node_signs_in_and_gets_an_empty_slice_until_it_has_one(
    cloud: ControlPlane, dial: Dial
) -> None:
    agent, secret = cloud.add_agent()
    zone = cloud.add_zone(cloud.add_region())
    stream = dial(secret)
    welcome = stream.sign_in()
    assert (welcome.kind, welcome.node) == ("", "")
    agents = cloud.client.of(agent_pb2.Agent)
    until(lambda: agents.get(agent.meta.id).status.held_revision, what="the ack of an empty slice")
    host = cloud.add_host(zone, agent=agent.meta.id)
    parts = stream.batch()
    kinds = [resources.noun_of(described.resource) for described in objects(parts)]
    assert kinds == ["region", "zone", "kaktus"]
    stream.ack(parts)
    host.agent = ""
    cloud.client.of(kaktus_pb2.Kaktus).begin_update(host, ["agent"])
    parts = stream.batch()
    assert (objects(parts), set(parts[-1].removed)) == ([], {zone.region, zone.meta.id, host.meta.id})


def test_an_agent_that_disconnects_during_its_sign_in_is_not_shown_online(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is busy meanwhile: the sign-in is committed after the agent has disconnected."""
    gate, opened, closed = threading.Event(), threading.Event(), threading.Event()
    real_open, real_close = Fleet._open, Fleet._close

    async def record_open(fleet: Fleet, agent: str, token: str, holder: Holder) -> Session:
        opened.set()
        return await real_open(fleet, agent, token, holder)

    async def record_close(fleet: Fleet, opening: "asyncio.Task[Session]") -> None:
        closed.set()
        await real_close(fleet, opening)

    monkeypatch.setattr(Fleet, "_open", record_open)
    monkeypatch.setattr(Fleet, "_close", record_close)
    site.cloud.loop.start(site.cloud.kahuna.store.run(lambda _: gate.wait(15)))
    stream = dial(site.secret)
    stream.send(hello=fleet_pb2.Hello(protocol=1))
    assert opened.wait(60)
    stream.close()
    assert closed.wait(60)
    gate.set()
    until(lambda: agent_status(site).epoch, what="the sign-in")
    until(lambda: agent_status(site).stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")


def test_a_restarted_agent_sends_its_stored_objects_as_holdings(site: Site, tmp_path: Path, dial: Dial) -> None:
    host = FakeWorker()
    task = site.cloud.dial(site.secret, host, state="agent")
    until(lambda: site.template.meta.id in host.wanted, what="the slice")
    site.cloud.disconnect(task)
    stored = host.wanted
    accepted: list[Mapping[str, fleet_pb2.Object]] = []

    class RecordingWorker(FakeWorker):
        def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
            accepted.append(dict(desired))

    restarted = RecordingWorker()
    site.cloud.dial(site.secret, restarted, state="agent")
    until(lambda: agent_status(site).epoch == 2 and agent_status(site).held_revision, what="a second session in step")
    assert restarted.wanted == stored
    assert accepted == [stored], "it gets no object that it holds already"
    assert agent_status(site).refusal == ""
    assert held(stored.values())


@pytest.mark.slow
def test_operations_say_that_a_host_is_back_though_no_silence_can_be_stored(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(fleet.Fleet, "_update_stale", fail)
    waiting = site.add_volume("data").operation_id
    assert site.client.operations.get(waiting).message.startswith("HOST_OFFLINE")
    signed_in = dial(site.secret)
    signed_in.sign_in()
    until(lambda: not site.client.operations.get(waiting).message, what="the word that its host is back")


@pytest.mark.slow
def test_a_silent_agent_is_stale_until_it_sends_again(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "STALE_AFTER_S", 1.0)
    monkeypatch.setattr(session, "HEARTBEAT_INTERVAL_S", 0.1)
    # An idle agent that sends only heartbeats.
    idle, secret = site.cloud.add_agent("quiet")
    site.cloud.dial(secret, FakeWorker(), "quiet")

    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    stream.send(**memory_report(site, 4 * GIB))
    until(lambda: agent_status(site).stream == agent_pb2.STREAM_STALE, what="STALE")
    waiting = site.client.operations.get(site.add_instance("web").operation_id)
    assert (waiting.phase, waiting.message.partition(":")[0]) == (operation_pb2.PHASE_WAITING, "HOST_STALE")
    stream.send(**memory_report(site, 4 * GIB))
    until(lambda: agent_status(site).stream == agent_pb2.STREAM_ONLINE, what="ONLINE")
    until(lambda: agent_status(site).stream == agent_pb2.STREAM_STALE, what="STALE once more")
    stream.close()
    until(lambda: agent_status(site).stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")

    status = site.client.agents.get(idle.meta.id).status
    assert (status.stream, status.epoch) == (agent_pb2.STREAM_ONLINE, 1)
    assert status.seen_time.ToNanoseconds() < agent_status(site).seen_time.ToNanoseconds() - 2e9
