"""Consoles on the fleet port: they end with the agent's session, and on invalid messages."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from kahuna.fleet import service
from kahuna.fleet.session import MAX_OUTBOUND
from kahuna.kinds.console import MAX_CHUNK_BYTES, MAX_OUTPUT_BYTES
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.console import RELAY
from tests.control_plane import ControlPlane
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import ANSWER_TIMEOUT_S, AgentStream, Call
from tests.site import Site
from tests.viewer import Viewer
from tests.waiting import until


class Relay(Call):
    """An agent's call that relays a console, played by hand. It can also send bytes that are not a message."""

    def __init__(self, cloud: ControlPlane, secret: str) -> None:
        super().__init__(cloud, secret, RELAY, None, fleet_pb2.RelayResponse.FromString)

    def send(self, **message: Any) -> None:
        """Sends a message, e.g. `data=...`."""
        self.send_bytes(fleet_pb2.RelayRequest(**message).SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes, also such as are not a message."""
        self._loop.run(self._call.write(data))

    def receive(self) -> bytes:
        """The next keys; empty at the end."""
        response = self._loop.run(asyncio.wait_for(self._call.read(), ANSWER_TIMEOUT_S))
        return response.data if isinstance(response, fleet_pb2.RelayResponse) else b""


OpenRelay = Callable[[], Relay]


@pytest.fixture
def open_relay(site: Site) -> Iterator[OpenRelay]:
    """Opens relays by hand; closes them all at the end."""
    calls: list[Relay] = []

    def open_call() -> Relay:
        calls.append(Relay(site.cloud, site.secret))
        return calls[-1]

    yield open_call
    for call in calls:
        call.close()


def open_console(site: Site, dial: Dial, open_relay: OpenRelay) -> tuple[AgentStream, Viewer, Relay]:
    """An agent's session, a viewer of a console of its host, and the relay between them."""
    web = site.running_on_lost_host()
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    viewer = Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id)
    relay = open_relay()
    relay.send(ticket=stream.receive().console.ticket)
    relay.send(data=b"login: ")
    viewer.until(b"login: ")
    return stream, viewer, relay


def revoke(site: Site) -> None:
    """Revokes the agent's token."""
    token = next(site.client.agent_tokens.list(filter=f'agent = "{site.agent.meta.id}"'))
    site.client.agent_tokens.delete(token.meta.id)


@pytest.mark.parametrize("how", ["revoked", "superseded", "closed"])
def test_a_console_ends_with_its_agents_session(site: Site, dial: Dial, open_relay: OpenRelay, how: str) -> None:
    stream, viewer, relay = open_console(site, dial, open_relay)
    viewer.type(b"root\r")
    assert relay.receive() == b"root\r"

    {"revoked": lambda: revoke(site), "superseded": lambda: dial(site.secret).sign_in(), "closed": stream.close}[how]()
    assert relay.receive() == b""
    until(viewer.has_ended, what="the end of the console")
    assert "its host's session has ended" in viewer.error


@pytest.mark.parametrize("how", ["revoked", "superseded"])
def test_a_ticket_is_invalid_after_its_session_has_ended(
    site: Site, dial: Dial, open_relay: OpenRelay, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The relay's call is accepted before the session ends, and sends its ticket after."""
    web = site.running_on_lost_host()
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    accepted, timeout = threading.Event(), service._timeout

    def note(seconds: float, what: str) -> AbstractAsyncContextManager[None]:
        if "console" in what:
            accepted.set()
        return timeout(seconds, what)

    monkeypatch.setattr(service, "_timeout", note)
    Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id)
    ticket = stream.receive().console.ticket
    late = open_relay()
    assert accepted.wait(ANSWER_TIMEOUT_S)
    if how == "revoked":
        revoke(site)
    else:
        dial(site.secret).sign_in()
    stream.status()
    late.send(ticket=ticket)
    assert late.status() == ("NOT_FOUND", "nobody waits for this console")


def test_an_invalid_message_ends_the_viewers_console(site: Site, dial: Dial, open_relay: OpenRelay) -> None:
    _, viewer, relay = open_console(site, dial, open_relay)
    relay.send_bytes(b"\xff\xff\xff")
    until(viewer.has_ended, what="the end of the console")
    assert relay.status() == ("INVALID_ARGUMENT", "the agent sent 3 bytes that are no RelayRequest")


def test_output_beside_the_ticket_is_shown(site: Site, dial: Dial, open_relay: OpenRelay) -> None:
    web = site.running_on_lost_host()
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    viewer = Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id)
    open_relay().send(ticket=stream.receive().console.ticket, data=b"login: ")
    viewer.until(b"login: ")
    viewer.leave()


def test_an_agent_has_a_bounded_number_of_calls_open(
    site: Site, dial: Dial, open_relay: OpenRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_CALLS", 1)
    stream = dial(site.secret)
    stream.sign_in()
    assert open_relay().status() == ("UNAVAILABLE", "the agent has 1 calls open, 1 at most; end some of them")
    _, other = site.cloud.add_agent("agent-2")
    assert dial(other).sign_in().epoch == 1


def test_a_piece_of_output_above_the_limit_ends_the_console(site: Site, dial: Dial, open_relay: OpenRelay) -> None:
    _, viewer, relay = open_console(site, dial, open_relay)
    relay.send(data=bytes(MAX_CHUNK_BYTES))
    until(lambda: len(viewer.output) == len(b"login: ") + MAX_CHUNK_BYTES, what="the largest piece")
    relay.send(data=bytes(MAX_CHUNK_BYTES + 1))
    until(viewer.has_ended, what="the end of the console")
    assert viewer.error.startswith("its host sends more than it may")


def test_output_above_the_size_limit_ends_the_console_and_is_dropped(
    site: Site, dial: Dial, open_relay: OpenRelay
) -> None:
    _, viewer, relay = open_console(site, dial, open_relay)
    relay.send(data=bytes(MAX_OUTPUT_BYTES + 1))
    until(viewer.has_ended, what="the end of the console")
    assert viewer.error.startswith("its host sends more than it may")
    assert bytes(viewer.output) == b"login: "


def test_many_unanswered_consoles_are_all_kept(site: Site, dial: Dial, open_relay: OpenRelay) -> None:
    """The first of them can still be answered."""
    web = site.running_on_lost_host()
    stream = dial(site.secret)
    stream.sign_in()
    stream.ack(stream.batch())
    viewers = [Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id) for _ in range(2 * MAX_OUTBOUND)]
    first, *_ = [stream.receive().console.ticket for _ in viewers]
    relay = open_relay()
    relay.send(ticket=first)
    relay.send(data=b"login: ")
    until(lambda: any(viewer.output == b"login: " for viewer in viewers), what="the first console")
    for viewer in viewers:
        viewer.leave()


def test_keys_typed_before_the_viewer_left_reach_the_host(site: Site, dial: Dial, open_relay: OpenRelay) -> None:
    _, viewer, relay = open_console(site, dial, open_relay)
    paste = bytes(range(256)) * 256
    viewer.type(paste)
    viewer.type(paste)  # waits in Kahuna until the host reports the first paste as done
    viewer.leave()
    received = b""
    while keys := relay.receive():
        received += keys
        if len(received) <= len(paste):
            relay.send(done=1)
    assert received == 2 * paste
