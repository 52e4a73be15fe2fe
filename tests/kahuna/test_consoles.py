"""Consoles: keys in order and once, each party's end, and what one that nobody reads costs."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from kahuna.domain.errors import Refusal
from kahuna.kinds import console
from kahuna.kinds.console import Console, Consoles
from kahuna.maintenance import show_audit_trail
from kowa import errors
from kowa.runtime.feed import Keys, Refused
from kowa.v2 import instance_pb2
from tests.control_plane import ControlPlane, FakeHost
from tests.site import Site, make_site
from tests.viewer import Viewer
from tests.waiting import until

MIB, CHUNK = 1 << 20, 64 << 10


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site."""
    return make_site(cloud)


@pytest.fixture
def viewers(site: Site) -> Iterator[list[Viewer]]:
    """Those who look, each at a client of their own."""
    made: list[Viewer] = []
    yield made
    for viewer in made:
        viewer.leave()


def view(site: Site, viewers: list[Viewer], instance: str, *, reason: str = "") -> Viewer:
    """Somebody who looks at a machine that has printed something."""
    viewers.append(Viewer(site.cloud.settings.api, site.cloud.key, instance, reason=reason))
    viewers[-1].until(b"login: ")
    return viewers[-1]


class Deaf(FakeHost):
    """Its machine prints, and reads no keys until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_read = b""
        self.hears = threading.Event()
        self.left = threading.Event()

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """Hears all in the end."""
        yield b"login: "
        try:
            await asyncio.to_thread(self.hears.wait)
            async for data in keys:
                self.keys_read += data if isinstance(data, bytes) else b""
                yield b"."
        finally:
            self.left.set()


def test_a_console_shows_what_was_printed_and_passes_keys_and_sizes(site: Site, viewers: list[Viewer]) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    first, second = view(site, viewers, web.meta.id), view(site, viewers, web.meta.id)
    first.type(b"root\r")
    first.until(b"ROOT\r")
    first.resize(24, 80)
    first.until(b"24x80")
    second.type(b"whoami")
    second.until(b"WHOAMI")
    assert bytes(first.output) == b"login: ROOT\r24x80"


@pytest.mark.slow
def test_a_console_of_what_is_not_there_says_so(site: Site) -> None:
    with pytest.raises(errors.NotFound):
        next(site.client.instances.console("nothing"))
    web = site.running_on_lost_host()
    with pytest.raises(errors.Unavailable, match="host is not connected"):
        next(site.client.instances.console(web.meta.id))


def test_who_opened_a_console_is_in_the_audit_trail(
    site: Site, viewers: list[Viewer], capsys: pytest.CaptureFixture[str]
) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    view(site, viewers, web.meta.id, reason="it does not boot").type(b"x")
    capsys.readouterr()
    show_audit_trail(site.cloud.settings, web.meta.id, days=1)
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(line["method"], line["caller"], line["target_name"], line.get("reason")) for line in logged] == [
        ("CreateInstance", "admin", "web", None),
        ("ConsoleInstance", "admin", "web", "it does not boot"),
    ]
    assert "operation" not in logged[-1]


# Keys at an offset; what is answered: how many bytes were taken, or why none were.
KEYS = """
    0  hello  5
    0  hello  5            again: done already
    2  llo    5            a part of it
    3  lo!    6            a part of it and more
    9  late   CONSOLE_GAP:6
    6  .      7
    -1 x      INVALID_ARGUMENT:
"""


def test_keys_are_taken_in_order_and_once(site: Site, viewers: list[Viewer]) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    viewer = view(site, viewers, web.meta.id)
    for line in KEYS.strip().splitlines():
        offset, keys, wanted, *_ = line.split()
        assert viewer.try_send(int(offset), keys.encode()) == wanted
    viewer.send(7, b"$")
    viewer.until(b"$")
    assert bytes(viewer.output) == b"login: HELLO!.$"


def test_a_paste_arrives_in_order_and_a_larger_one_is_refused(site: Site, viewers: list[Viewer]) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    viewer = view(site, viewers, web.meta.id)
    paste = b"".join(b"%07d\n" % number for number in range(1 << 13))
    assert len(paste) == 64 << 10
    with pytest.raises(errors.Invalid, match="65536 at most"):
        viewer.send(0, paste + b"x")
    for _ in range(3):
        viewer.type(paste)
    viewer.type(b"$")
    viewer.until(b"$")
    assert bytes(viewer.output) == b"login: " + 3 * paste + b"$"


def test_a_machine_that_reads_no_keys_holds_up_who_types_and_loses_none(
    site: Site, viewers: list[Viewer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr("kowa.calls.OPTIONS", [("grpc.enable_retries", 0)])
    site.connect_host(host := Deaf())
    web = site.client.instances.create(site.wanted("web"))
    viewer, paste = view(site, viewers, web.meta.id), bytes(range(256)) * 256
    answers = [viewer.try_send(viewer.accepted_bytes, paste) for _ in range(4)]
    assert answers[0] == str(len(paste))
    assert answers[-1] == "BUSY:"
    host.hears.set()
    until(lambda: len(host.keys_read) == viewer.accepted_bytes, what="the keys")
    viewer.type(b"$")
    until(lambda: host.keys_read.endswith(b"$"), what="the last key")
    assert host.keys_read == paste * (viewer.accepted_bytes // len(paste)) + b"$"


def test_a_console_is_its_callers_own() -> None:
    def ask(agent: str, ticket: str, instance: str) -> asyncio.Event | None:
        tickets.append(ticket)
        asked.set()
        return host if agent else None

    async def story() -> None:
        consoles = Consoles()
        consoles.ask = ask
        opening = consoles.open("ann", "agent", "web")
        entered = asyncio.create_task(opening.__aenter__())
        await asked.wait()
        with pytest.raises(Refusal, match="nobody waits"):
            consoles.attach(tickets[0], asyncio.Event())
        assert consoles.attach(tickets[0], host) is await entered
        with pytest.raises(Refusal, match="nobody waits"):
            consoles.attach(tickets[0], host)
        assert isinstance(consoles.of("ann", "web", tickets[0]), Console)
        for caller, instance, session in (("bob", "web", tickets[0]), ("ann", "db", tickets[0]), ("ann", "web", "?")):
            with pytest.raises(Refusal) as refused:
                consoles.of(caller, instance, session)
            assert refused.value.reason == "NOT_FOUND"
        await opening.__aexit__(None, None, None)
        with pytest.raises(Refusal, match="has ended"):
            consoles.of("ann", "web", tickets[0])

    tickets: list[str] = []
    asked, host = asyncio.Event(), asyncio.Event()
    asyncio.run(story())


@pytest.mark.parametrize("who", ["viewer", "agent", "Kahuna", "machine"])
def test_when_one_party_ends_so_do_the_others(site: Site, viewers: list[Viewer], who: str) -> None:
    class Ending(Deaf):
        async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
            async for data in super().console(instance, keys):
                yield data
                if self.keys_read == b"exit":
                    raise Refused("its host has lost it")

    host = Ending()
    host.hears.set()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    viewer = view(site, viewers, web.meta.id)
    instances, session = site.client.instances, viewer.session
    parties: dict[str, Callable[[], object]] = {
        "viewer": viewer.leave,
        "agent": lambda: site.cloud.disconnect(agent),
        "Kahuna": site.cloud.stop,
        "machine": lambda: viewer.type(b"exit"),
    }
    reason = {"agent": "session has ended", "Kahuna": "", "machine": "its host has lost it", "viewer": "closed"}[who]
    parties[who]()
    until(viewer.has_ended, what="the viewer's end")
    assert reason in viewer.error
    assert viewer.error
    until(host.left.is_set, what="the host's end")
    if who == "Kahuna":
        site.cloud.start()
        instances = site.client.instances
    with pytest.raises(errors.NotFound, match="no such console, or it has ended"):
        instances.type_console(web.meta.id, session=session, data=b"x")


class Flooding(FakeHost):
    """Its machine prints without a pause, as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.printed, self.keys_read = 0, b""
        self.floods = threading.Event()
        self.floods.set()

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """Hears what is typed meanwhile."""
        if not self.floods.is_set():
            async for data in super().console(instance, keys):
                yield data
        hearing = asyncio.create_task(self._hear(keys))
        try:
            while True:
                self.printed += CHUNK
                yield bytes(CHUNK)
        finally:
            hearing.cancel()

    async def _hear(self, keys: Keys) -> None:
        async for data in keys:
            self.keys_read += data if isinstance(data, bytes) else b""

    def is_still(self) -> bool:
        """Whether nothing was printed for a while."""
        before = self.printed
        threading.Event().wait(0.3)
        return before == self.printed


def test_a_console_that_nobody_reads_waits_and_slows_no_other(site: Site, viewers: list[Viewer]) -> None:
    host = Flooding()
    site.connect_host(host)
    web = site.client.instances.create(site.wanted("web"))
    # The reader's own end keeps little.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10)]
    with grpc.insecure_channel(site.cloud.settings.api, options) as channel:
        call: Any = channel.unary_stream(
            "/kowa.v2.InstanceService/ConsoleInstance",
            instance_pb2.ConsoleInstanceRequest.SerializeToString,
            instance_pb2.ConsoleInstanceResponse.FromString,
        )
        key = (("authorization", f"Bearer {site.cloud.key}"),)
        unread = [call(instance_pb2.ConsoleInstanceRequest(id=web.meta.id), metadata=key) for _ in range(8)]
        sessions = [next(shown).session for shown in unread]
        until(host.is_still, what="the host waits for who does not read")
        assert host.printed < len(unread) * MIB
        host.floods.clear()
        viewer = view(site, viewers, web.meta.id)
        viewer.type(b"root")
        viewer.until(b"ROOT")
        assert site.client.instances.reboot(web.meta.id)
        site.client.instances.type_console(web.meta.id, session=sessions[0], data=b"^C")
        until(lambda: host.keys_read == b"^C", what="keys for what is not read")
        for shown in unread[1:]:
            shown.cancel()
        assert next(unread[0]).data
