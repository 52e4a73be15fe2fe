"""Who gets a session, what ends one, and that nobody else suffers from it."""

import asyncio
import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from kahuna.fleet import fleet, service
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.session import Session
from kahuna.security import certificates
from kowa import errors, resources
from kowa.client import Client
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime import session
from kowa.v2 import agent_pb2, kaktus_pb2, operation_pb2, template_pb2
from tests.control_plane import GIB, ControlPlane, FakeHost
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import held, objects
from tests.site import Site
from tests.waiting import until

LARGEST = 4 << 20


def stream(site: Site) -> agent_pb2.AgentStatus:
    """How the agent's stream stands, as callers see it."""
    return site.client.of(agent_pb2.Agent).get(site.agent.meta.id).status


def seen(site: Site, memory: int) -> dict[str, fleet_pb2.Reports]:
    """The message in which an agent says how much memory its host has."""
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


def test_the_newer_session_of_an_agent_wins_and_the_older_is_told_why(site: Site, dial: Dial) -> None:
    older, newer = dial(site.secret), dial(site.secret)
    first = older.sign_in()
    older.ack(older.batch())
    second = newer.sign_in()
    assert second.epoch == first.epoch + 1
    assert older.status() == ("ABORTED", "the session has ended: superseded by a newer session of the same agent")
    newer.send(**seen(site, 7))
    until(lambda: memory(site) == 7, what="the newer session's report")
    assert stream(site).stream == agent_pb2.STREAM_ONLINE
    assert stream(site).epoch == second.epoch


def test_what_an_older_session_has_said_is_ignored_once_there_is_a_newer(site: Site, dial: Dial) -> None:
    """The report and the newer sign-in cross: it is still being collected when the epoch moves."""
    older, newer = dial(site.secret), dial(site.secret)
    older.sign_in()
    reports, wait = "kahuna.fleet.reports.STORE_INTERVAL_S", 0.5
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reports, wait)
        older.send(**seen(site, 13))
        newer.sign_in()
        newer.ack(newer.batch())
        until(lambda: stream(site).held_revision, what="the newer session's ack, stored with the older one's report")
    assert memory(site) == 0


def test_a_revoked_token_cuts_its_session_at_once_even_under_load(site: Site, dial: Dial) -> None:
    site.connect_host()
    spare, secret = site.cloud.agent("agent-2")
    line = dial(secret)
    line.sign_in()
    enough, numbers = threading.Event(), itertools.count()
    calls: list[tuple[float, float]] = []

    def load() -> None:
        while not enough.is_set():
            begun = time.monotonic()
            wanted = template_pb2.Template(
                storage_pool=site.pool.meta.id, name=f"t{next(numbers)}", source="t.qcow2", sha256="0" * 64
            )
            site.client.of(template_pb2.Template).begin_create(wanted)
            calls.append((begun, time.monotonic()))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        token = next(site.client.agent_tokens.list(filter=f'agent = "{spare.meta.id}"'))
        until(lambda: len(list(site.client.templates.list())) > 20, what="load")
        site.client.agent_tokens.begin_delete(token.meta.id)
        revoked = time.monotonic()
        assert line.status() == ("ABORTED", "the session has ended: its token has been revoked")
        took = time.monotonic() - revoked
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    # A machine that is busy with other things is slow with all: what the slowest call has taken meanwhile is its part.
    assert took < 1 + max(ended - begun for begun, ended in calls if ended > revoked)
    assert dial(secret).status() == (
        "UNAUTHENTICATED", "the key is unknown or has been revoked; use one that is valid"
    )  # fmt: skip


def test_a_token_revoked_between_the_call_and_the_hello_opens_nothing(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in, hello = threading.Event(), service._hello

    async def listen(requests: service.Requests) -> fleet_pb2.Hello:
        let_in.set()
        return await hello(requests)

    monkeypatch.setattr(service, "_hello", listen)
    line = dial(site.secret)
    assert let_in.wait(60)
    token = next(site.client.agent_tokens.list(filter=f'agent = "{site.agent.meta.id}"'))
    site.client.agent_tokens.delete(token.meta.id)
    line.send(hello=fleet_pb2.Hello(protocol=1))
    assert line.status() == ("UNAUTHENTICATED", "the key has been revoked; use one that is valid")
    assert stream(site).epoch == 0


def test_a_message_may_be_as_long_as_the_limit_and_no_byte_longer(site: Site, dial: Dial) -> None:
    _, other = site.cloud.agent("agent-2")
    bystander, line = dial(other), dial(site.secret)
    bystander.sign_in()
    assert line.sign_in().max_message == LARGEST
    line.ack(line.batch())

    def padded(size: int) -> fleet_pb2.Reports:
        report = fleet_pb2.Report(id="x")
        whole = fleet_pb2.ConnectRequest(reports=fleet_pb2.Reports(reports=[report]))
        while (missing := size - whole.ByteSize()) > 0:
            whole.reports.reports[0].message += "m" * max(1, missing - 16)
        return whole.reports

    line.send(reports=padded(LARGEST))
    line.send(**seen(site, 5))
    until(lambda: memory(site) == 5, what="the report after the longest message")
    line.send(reports=padded(LARGEST + 1))
    code, why = line.status()
    assert (code, why.partition(" (")[0]) == ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max")
    assert bystander.receives_nothing()


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        (0, "the agent speaks protocol 0, this Kahuna speaks 1; upgrade the agent"),
        (2, "the agent speaks protocol 2, this Kahuna speaks 1; upgrade Kahuna first, then its agents"),
    ],
)
def test_another_protocol_is_refused_with_what_to_do(site: Site, dial: Dial, spoken: int, words: str) -> None:
    line = dial(site.secret)
    line.send(hello=fleet_pb2.Hello(protocol=spoken))
    assert line.status() == ("INVALID_ARGUMENT", words)
    assert stream(site).epoch == 0


def test_who_says_anything_before_hello_is_refused(site: Site, dial: Dial) -> None:
    line = dial(site.secret)
    line.send(ack=fleet_pb2.Ack(nonce="x"))
    assert line.status() == ("INVALID_ARGUMENT", "the first message must be a hello")


def test_an_agent_that_trusts_another_authority_does_not_talk_to_us(site: Site, dial: Dial, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    certificates.ensure(elsewhere, ["localhost"])
    code, why = dial(site.secret, ca=elsewhere / "ca.pem").status()
    assert code == "UNAVAILABLE"
    assert "certificate" in why
    assert stream(site).epoch == 0


@pytest.mark.parametrize("whose", ["nobody's", "unknown", "the admin's"])
def test_only_an_agent_token_opens_the_fleet_port(site: Site, dial: Dial, whose: str) -> None:
    secret, code, words = {
        "nobody's": ("", "UNAUTHENTICATED", "no key was sent; send `authorization: Bearer <key>`"),
        "unknown": (
            "kowa_agent_000000000000_" + "0" * 64,
            "UNAUTHENTICATED",
            "the key is unknown or has been revoked; use one that is valid",
        ),
        "the admin's": (site.cloud.key, "PERMISSION_DENIED", "admin may not call /kowa.fleet.v1.FleetService/Connect"),
    }[whose]
    assert dial(secret).status() == (code, words)


def test_an_agent_token_opens_nothing_of_the_api(site: Site) -> None:
    agent = Client(site.cloud.settings.api, key=site.secret, insecure=True)
    with agent, pytest.raises(errors.Denied) as refused:
        agent.kaktuses.get(site.host.meta.id)
    assert refused.value.reason == "PERMISSION_DENIED"


def test_an_agent_bound_to_nothing_signs_in_and_is_told_nothing_until_it_is_bound(
    cloud: ControlPlane, dial: Dial
) -> None:
    agent, secret = cloud.agent()
    zone = cloud.zone(cloud.region())
    line = dial(secret)
    welcome = line.sign_in()
    assert (welcome.kind, welcome.node) == ("", "")
    agents = cloud.client.of(agent_pb2.Agent)
    until(lambda: agents.get(agent.meta.id).status.held_revision, what="it holds all that it shall, which is nothing")
    host = cloud.host(zone, agent=agent.meta.id)
    told = line.batch()
    kinds = [resources.noun_of(described.resource) for described in objects(told)]
    assert kinds == ["region", "zone", "kaktus"]
    line.ack(told)
    host.agent = ""
    cloud.client.of(kaktus_pb2.Kaktus).begin_update(host, ["agent"])
    told = line.batch()
    assert (objects(told), set(told[-1].removed)) == ([], {zone.region, zone.meta.id, host.meta.id})


def test_an_agent_that_goes_while_it_signs_in_is_not_shown_online(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is busy meanwhile: its sign-in is committed after it has gone."""
    gate, come, gone = threading.Event(), threading.Event(), threading.Event()
    opens, closes = Fleet._open, Fleet._close

    async def note_open(fleet: Fleet, agent: str, token: str, version: str) -> Session:
        come.set()
        return await opens(fleet, agent, token, version)

    async def note_close(fleet: Fleet, opening: "asyncio.Task[Session]") -> None:
        gone.set()
        await closes(fleet, opening)

    monkeypatch.setattr(Fleet, "_open", note_open)
    monkeypatch.setattr(Fleet, "_close", note_close)
    site.cloud.loop.start(site.cloud.kahuna.store.run(lambda _: gate.wait(15)))
    line = dial(site.secret)
    line.send(hello=fleet_pb2.Hello(protocol=1))
    assert come.wait(60)
    line.close()
    assert gone.wait(60)
    gate.set()
    until(lambda: stream(site).epoch, what="the sign-in")
    until(lambda: stream(site).stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")


def test_an_agent_offers_what_it_stored_when_it_starts_again(site: Site, tmp_path: Path, dial: Dial) -> None:
    host = FakeHost()
    task = site.cloud.dial(site.secret, host, state="agent")
    until(lambda: site.template.meta.id in host.wanted, what="the slice")
    site.cloud.disconnect(task)
    stored = host.wanted
    looked_at: list[Mapping[str, fleet_pb2.Object]] = []

    class Noting(FakeHost):
        def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
            looked_at.append(dict(desired))

    again = Noting()
    site.cloud.dial(site.secret, again, state="agent")
    until(lambda: stream(site).epoch == 2 and stream(site).held_revision, what="a second session in step")
    assert again.wanted == stored
    assert looked_at == [stored], "it is told nothing that it does not hold"
    assert stream(site).refusal == ""
    assert held(stored.values())


@pytest.mark.slow
def test_a_silent_agent_is_stale_until_it_sends_again(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "STALE_AFTER_S", 1.0)
    monkeypatch.setattr(session, "HEARTBEAT_INTERVAL_S", 0.1)
    # One that has nothing to say, and says that.
    quiet, secret = site.cloud.agent("quiet")
    site.cloud.dial(secret, FakeHost(), "quiet")

    line = dial(site.secret)
    line.sign_in()
    line.ack(line.batch())
    line.send(**seen(site, 4 * GIB))
    until(lambda: stream(site).stream == agent_pb2.STREAM_STALE, what="STALE")
    waiting = site.client.operations.get(site.machine("web").operation_id)
    assert (waiting.phase, waiting.message.partition(":")[0]) == (operation_pb2.PHASE_WAITING, "HOST_STALE")
    line.send(**seen(site, 4 * GIB))
    until(lambda: stream(site).stream == agent_pb2.STREAM_ONLINE, what="ONLINE")
    until(lambda: stream(site).stream == agent_pb2.STREAM_STALE, what="STALE once more")
    line.close()
    until(lambda: stream(site).stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")

    status = site.client.agents.get(quiet.meta.id).status
    assert (status.stream, status.epoch) == (agent_pb2.STREAM_ONLINE, 1)
    assert status.seen_time.ToNanoseconds() < stream(site).seen_time.ToNanoseconds() - 2e9
