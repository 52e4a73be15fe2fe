"""Consoles as the fleet's port has them: they end with the session that shows them, and with what is no message."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from kahuna.fleet import service
from kahuna.fleet.session import MAX_OUTBOUND
from kahuna.kinds.console import MAX_OUTPUT_BYTES
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.console import RELAY
from tests.control_plane import ControlPlane
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import ANSWER_LIMIT_S, AgentStream, Call
from tests.site import Site
from tests.viewer import Viewer
from tests.waiting import until


class Shown(Call):
    """What an agent shows of a machine, by hand. It sends bytes as they are: they need not be a message."""

    def __init__(self, cloud: ControlPlane, secret: str) -> None:
        super().__init__(cloud, secret, RELAY, None, fleet_pb2.RelayResponse.FromString)

    def send(self, **message: Any) -> None:
        """Sends a message, e.g. `data=...`."""
        self.send_bytes(fleet_pb2.RelayRequest(**message).SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes, be they no message."""
        self._loop.run(self._call.write(data))

    def receive(self) -> bytes:
        """The next keys; nothing at the end."""
        answer = self._loop.run(asyncio.wait_for(self._call.read(), ANSWER_LIMIT_S))
        return answer.data if isinstance(answer, fleet_pb2.RelayResponse) else b""


Show = Callable[[], Shown]


@pytest.fixture
def show(site: Site) -> Iterator[Show]:
    """Opens calls by hand, and hangs them all up."""
    calls: list[Shown] = []

    def open_call() -> Shown:
        calls.append(Shown(site.cloud, site.secret))
        return calls[-1]

    yield open_call
    for call in calls:
        call.close()


def shown(site: Site, dial: Dial, show: Show) -> tuple[AgentStream, Viewer, Shown]:
    """An agent's session, who looks at a console of its host, and the call that shows it."""
    web = site.running_on_lost_host()
    line = dial(site.secret)
    line.sign_in()
    line.ack(line.batch())
    viewer = Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id)
    relay = show()
    relay.send(ticket=line.receive().console.ticket)
    relay.send(data=b"login: ")
    viewer.until(b"login: ")
    return line, viewer, relay


def revoke(site: Site) -> None:
    """Takes the agent's token back."""
    token = next(site.client.agent_tokens.list(filter=f'agent = "{site.agent.meta.id}"'))
    site.client.agent_tokens.delete(token.meta.id)


@pytest.mark.parametrize("how", ["revoked", "superseded", "closed"])
def test_a_console_ends_with_the_session_that_shows_it(site: Site, dial: Dial, show: Show, how: str) -> None:
    line, viewer, relay = shown(site, dial, show)
    viewer.type(b"root\r")
    assert relay.receive() == b"root\r"

    {"revoked": lambda: revoke(site), "superseded": lambda: dial(site.secret).sign_in(), "closed": line.close}[how]()
    assert relay.receive() == b""
    until(viewer.has_ended, what="the end of the console")
    assert "its host's session has ended" in viewer.error


@pytest.mark.parametrize("how", ["revoked", "superseded"])
def test_a_ticket_is_of_no_use_once_the_session_it_was_given_to_has_ended(
    site: Site, dial: Dial, show: Show, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The call is let in before that, and says its ticket after."""
    web = site.running_on_lost_host()
    line = dial(site.secret)
    line.sign_in()
    line.ack(line.batch())
    let_in, limit = threading.Event(), service._limit

    def note(seconds: float, what: str) -> AbstractAsyncContextManager[None]:
        if "console" in what:
            let_in.set()
        return limit(seconds, what)

    monkeypatch.setattr(service, "_limit", note)
    Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id)
    ticket = line.receive().console.ticket
    late = show()
    assert let_in.wait(ANSWER_LIMIT_S)
    if how == "revoked":
        revoke(site)
    else:
        dial(site.secret).sign_in()
    line.status()
    late.send(ticket=ticket)
    assert late.status() == ("NOT_FOUND", "nobody waits for this console")


def test_what_is_no_message_ends_the_console_for_its_viewer(site: Site, dial: Dial, show: Show) -> None:
    _, viewer, relay = shown(site, dial, show)
    relay.send_bytes(b"\xff\xff\xff")
    until(viewer.has_ended, what="the end of the console")


def test_a_host_that_sends_more_than_it_may_ends_the_console_and_costs_nothing(
    site: Site, dial: Dial, show: Show
) -> None:
    _, viewer, relay = shown(site, dial, show)
    relay.send(data=bytes(MAX_OUTPUT_BYTES + 1))
    until(viewer.has_ended, what="the end of the console")
    assert viewer.error.startswith("its host sends more than it may")
    assert bytes(viewer.seen) == b"login: "


def test_of_many_consoles_that_nobody_answers_yet_none_is_forgotten(site: Site, dial: Dial, show: Show) -> None:
    """The first of them is answered all the same."""
    web = site.running_on_lost_host()
    line = dial(site.secret)
    line.sign_in()
    line.ack(line.batch())
    viewers = [Viewer(site.cloud.settings.api, site.cloud.key, web.meta.id) for _ in range(2 * MAX_OUTBOUND)]
    first, *_ = [line.receive().console.ticket for _ in viewers]
    relay = show()
    relay.send(ticket=first)
    relay.send(data=b"login: ")
    until(lambda: any(viewer.seen == b"login: " for viewer in viewers), what="the first console")
    for viewer in viewers:
        viewer.leave()


def test_what_was_typed_before_its_viewer_left_reaches_the_host(site: Site, dial: Dial, show: Show) -> None:
    _, viewer, relay = shown(site, dial, show)
    paste = bytes(range(256)) * 256
    viewer.type(paste)
    viewer.type(paste)  # waits in Kahuna until the host has carried out what it was sent
    viewer.leave()
    heard = b""
    while keys := relay.receive():
        heard += keys
        if len(heard) <= len(paste):
            relay.send(done=1)
    assert heard == 2 * paste
