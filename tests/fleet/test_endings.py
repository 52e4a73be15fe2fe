"""Endings of sessions: the agent is told why, and when it may come back; nothing ends with a traceback."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from kahuna.domain.lifecycle import OPEN_PHASES
from kahuna.fleet import ending, holders, service
from kahuna.fleet.session import Holder
from kahuna.kinds import command as commands
from kowa import errors
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, operation_pb2
from tests.control_plane import FakeWorker
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import AgentStream
from tests.site import Site
from tests.waiting import until

Logged = list[Any]


@pytest.fixture(autouse=True)
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[Logged]:
    """The log of a test, at whose end nothing has failed without words, on either side."""
    with capture_logs() as entries:
        yield entries
    assert [entry for entry in entries if entry.get("exc_info")] == []
    assert "Traceback" not in capfd.readouterr().err


def farewell(stream: AgentStream) -> tuple[str, str, float]:
    """The goodbye of a session: its code, its words, and the seconds to wait."""
    goodbye = stream.goodbye()
    return fleet_pb2.Farewell.Name(goodbye.farewell), goodbye.message, goodbye.retry_after.ToMilliseconds() / 1000


def in_step(site: Site, dial: Dial, **hello: Any) -> AgentStream:
    """The host's agent, played by hand, which has stored its slice."""
    stream = dial(site.secret)
    stream.sign_in(**hello)
    stream.ack(stream.batch())
    return stream


def status(site: Site) -> agent_pb2.AgentStatus:
    """The agent's status in the API."""
    return site.client.of(agent_pb2.Agent).get(site.agent.meta.id).status


def shared(site: Site) -> list[str]:
    """What the agent's conditions say of its token."""
    agent = site.client.of(agent_pb2.Agent).get(site.agent.meta.id)
    return [condition.message for condition in agent.meta.conditions if condition.type == "TokenShared"]


def test_a_message_that_cannot_be_read_ends_the_session_with_the_reason(site: Site, dial: Dial) -> None:
    first, later = dial(site.secret), in_step(site, dial)
    for stream in (first, later):
        stream.send_bytes(b"\xff\xff\xff")
        problem = "the agent sent 3 bytes that are no ConnectRequest"
        assert farewell(stream) == ("FAREWELL_PROTOCOL_ERROR", problem, 15)
        assert stream.status() == ("INVALID_ARGUMENT", problem)


def test_the_welcome_names_the_limits(site: Site, dial: Dial) -> None:
    welcome = dial(site.secret).sign_in()
    numbers = welcome.max_message, welcome.max_holdings, welcome.max_reports, welcome.max_relay_chunk, welcome.max_rate
    assert numbers == (1 << 20, 100_000, 20_000, 64 << 10, 1 << 20)
    times = welcome.sign_in_timeout, welcome.store_timeout, welcome.heartbeat
    assert [time.ToSeconds() for time in times] == [10, 60, 10]


def test_an_ack_without_a_batch_ends_the_session_and_breaks_no_later_batch(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    stream.sign_in()
    parts = stream.batch()
    stream.ack(parts)
    stream.ack(parts)
    code, message, _ = farewell(stream)
    assert (code, message.partition(";")[0]) == ("FAREWELL_PROTOCOL_ERROR", "an ack came while no batch is under way")
    again = in_step(site, dial)
    site.vnet.description = "changed"
    site.client.vnets.begin_update(site.vnet, ["description"])
    again.ack(again.batch())
    until(lambda: status(site).held_revision > parts[-1].revision, what="the next batch")


def test_an_ack_of_another_batch_ends_the_session(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    stream.sign_in()
    stream.batch()
    stream.send(ack=fleet_pb2.Ack(nonce="another"))
    code, message, _ = farewell(stream)
    assert (code, message.partition(";")[0]) == (
        "FAREWELL_PROTOCOL_ERROR", "the ack names another batch than the one under way"
    )  # fmt: skip


def test_an_agent_that_is_silent_or_stores_nothing_is_told_so(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SIGN_IN_TIMEOUT_S", 0.2)
    monkeypatch.setattr(service, "ACK_TIMEOUT_S", 0.2)
    silent = dial(site.secret)
    assert farewell(silent) == ("FAREWELL_TIMED_OUT", "the agent has not said hello within 0.2 s", 1)
    stuck = dial(site.secret)
    stuck.sign_in()
    assert farewell(stuck) == ("FAREWELL_TIMED_OUT", "the agent has not stored a batch within 0.2 s", 1)


def test_an_agent_of_another_protocol_is_told_the_remedy(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    stream.send(hello=fleet_pb2.Hello(protocol=2))
    code, message, _ = farewell(stream)
    assert (code, message.partition("; ")[2]) == ("FAREWELL_UNSUPPORTED", "upgrade Kahuna first, then its agents")


def test_a_refused_token_is_told_when_to_come_back_and_many_are_spread(site: Site, dial: Dial) -> None:
    pauses = []
    for _ in range(3):
        code, message, pause = farewell(dial("kowa_agent_000000000000_" + "0" * 64))
        assert (code, message) == (
            "FAREWELL_UNAUTHENTICATED", "the key is unknown or has been revoked; use one that is valid"
        )  # fmt: skip
        pauses.append(pause)
    assert all(15 <= pause < 16 for pause in pauses)


def test_an_agent_that_signs_in_too_often_is_told_to_come_back(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kahuna.fleet.sign_ins.SIGN_INS", 2)
    monkeypatch.setattr("kahuna.fleet.sign_ins.SIGN_INS_PER_SECOND", 0.01)
    for _ in range(2):
        in_step(site, dial)
    epoch = status(site).epoch
    stream = dial(site.secret)
    stream.send(hello=fleet_pb2.Hello(protocol=1))
    code, message, pause = farewell(stream)
    assert (code, message.partition(";")[0]) == ("FAREWELL_OVERLOADED", "the agent signs in too often")
    assert 90 < pause <= 100
    assert status(site).epoch == epoch, "no transaction"


def test_two_agents_with_one_token_are_both_told_and_shown(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_step(site, dial, process="first")
    second = in_step(site, dial, process="second")
    assert farewell(first)[0] == "FAREWELL_SUPERSEDED"
    assert shared(site) == [], "an agent that was started anew supersedes its own session, once"
    first = in_step(site, dial, process="first")
    code, message, pause = farewell(second)
    host = "127.0.0.1 (version by hand)"
    assert (code, pause) == ("FAREWELL_TOKEN_SHARED", 60)
    assert message.startswith(f"two agents take turns with one token: {host} and {host}; stop one of them")
    assert shared(site) == [message]
    second = in_step(site, dial, process="second")
    assert farewell(first)[:2] == ("FAREWELL_TOKEN_SHARED", message)
    # One of them is stopped: after a while nothing is wrong any more.
    monkeypatch.setattr(holders, "SHARED_WITHIN_S", 0.0)
    until(lambda: shared(site) == [], what="a token of one agent")
    assert second.receives_nothing()


def test_an_agent_whose_address_changes_shares_its_token_with_nobody() -> None:
    now = 0.0
    watch = holders.Holders(lambda: now)
    here, there = (Holder("one process", host, "1") for host in ("10.0.0.1", "192.0.2.7"))
    assert [watch.supersede("a", *pair) for pair in ((here, there), (there, here)) * 3] == [""] * 6
    other = Holder("another", "10.0.0.9", "2")
    assert watch.supersede("a", here, other) == ""
    now = holders.SHARED_WITHIN_S
    assert watch.supersede("a", other, here) == "", "it was stopped and started long after"
    now += 1
    problem = watch.supersede("a", here, other)
    assert "10.0.0.1 (version 1) and 10.0.0.9 (version 2)" in problem
    assert watch.problem("a") == problem


def test_kahuna_says_goodbye_when_it_stops_and_is_quick(site: Site, dial: Dial) -> None:
    streams = [in_step(site, dial)]
    _, secret = site.cloud.add_agent("agent-2")
    streams.append(dial(secret))
    streams[1].sign_in()
    site.connect_host()  # a real agent, too: it supersedes the first
    until(lambda: status(site).epoch == 2, what="the agent")
    loop, kahuna = site.cloud.loop, site.cloud.kahuna

    async def stop() -> float:
        started = asyncio.get_running_loop().time()
        await kahuna.stop()
        return asyncio.get_running_loop().time() - started

    took = loop.run(stop())
    site.cloud.client.close()
    assert farewell(streams[1])[::2] == ("FAREWELL_SHUTTING_DOWN", 0.5)
    assert streams[1].status()[0] == "UNAVAILABLE"
    assert took < service.GOODBYE_TIMEOUT_S, "no grace is waited out"
    site.cloud.start()
    until(lambda: status(site).epoch == 3, what="the agent's next session")


def test_an_agent_that_reads_nothing_holds_up_no_stop(site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kahuna.fleet.fleet.SHUTDOWN_TIMEOUT_S", 0.2)
    stream = in_step(site, dial)
    session = site.cloud.kahuna.fleet.sessions[site.agent.meta.id]
    real_end = session.end
    monkeypatch.setattr(session, "end", lambda _: None)  # as if its goodbye were never done
    site.cloud.loop.run(site.cloud.kahuna.fleet.stop())
    real_end(ending.protocol_error("enough"))
    assert farewell(stream)[0] == "FAREWELL_PROTOCOL_ERROR"


def sent_command(site: Site, dial: Dial) -> tuple[AgentStream, fleet_pb2.Command]:
    """A session with a command that was sent."""
    web = site.running_on_lost_host()
    site.client.instances.begin("reset", web.meta.id)
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    return stream, stream.receive().command


def test_an_unknown_ending_of_a_command_is_shown_with_words(site: Site, dial: Dial) -> None:
    stream, command = sent_command(site, dial)
    stream.send(result=fleet_pb2.CommandResult(id=command.id, ending=77))  # type: ignore[arg-type]
    problem = "UNKNOWN: its agent ended it as 77, which this Kahuna does not know; look before trying again"
    with pytest.raises(errors.OperationFailed, match=problem):
        site.client.operations.wait(command.id, 60)


def test_a_command_that_a_connected_agent_never_answers_ends(site: Site, dial: Dial) -> None:
    stream, command = sent_command(site, dial)
    store = site.cloud.kahuna.store
    clock = store._clock
    site.cloud.loop.run(store.run(commands.expire))
    assert site.client.operations.get(command.id).phase in OPEN_PHASES
    store._clock = lambda: clock() + commands.TIME_TO_LIVE_US + commands.ANSWER_TIMEOUT_US
    site.cloud.loop.run(store.run(commands.expire))
    operation = site.client.operations.get(command.id)
    assert operation.message.startswith("UNKNOWN: its agent is connected and has not answered")
    stream.send(result=fleet_pb2.CommandResult(id=command.id, ending=fleet_pb2.ENDING_DONE))
    assert stream.receives_nothing()
    assert site.client.operations.get(command.id).phase == operation_pb2.PHASE_FAILED


def test_a_command_of_an_agent_that_is_away_waits_for_it(site: Site, dial: Dial) -> None:
    stream, command = sent_command(site, dial)
    stream.close()
    until(lambda: status(site).stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")
    store = site.cloud.kahuna.store
    clock = store._clock
    store._clock = lambda: clock() + commands.TIME_TO_LIVE_US + commands.ANSWER_TIMEOUT_US
    site.cloud.loop.run(store.run(commands.expire))
    store._clock = clock
    assert site.client.operations.get(command.id).phase in OPEN_PHASES
    site.cloud.dial(site.secret, FakeWorker(), "another")
    until(lambda: site.client.operations.get(command.id).phase not in OPEN_PHASES, what="its end")
