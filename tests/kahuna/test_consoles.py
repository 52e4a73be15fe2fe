"""Consoles: keys arrive in order and once; how a console ends; a viewer that does not read slows only itself."""

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
from tests.control_plane import ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.viewer import Viewer
from tests.waiting import until

MIB, CHUNK = 1 << 20, 64 << 10


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


@pytest.fixture
def viewers(site: Site) -> Iterator[list[Viewer]]:
    """The test's viewers, each with its own client; closed at the end."""
    opened: list[Viewer] = []
    yield opened
    for viewer in opened:
        viewer.leave()


def open_viewer(site: Site, viewers: list[Viewer], instance: str, *, reason: str = "") -> Viewer:
    """A viewer of an instance that has printed its prompt."""
    viewers.append(Viewer(site.cloud.settings.api, site.cloud.key, instance, reason=reason))
    viewers[-1].until(b"login: ")
    return viewers[-1]


class PausedWorker(FakeWorker):
    """Its instance prints, and reads no keys until `reads_keys` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_read = b""
        self.reads_keys = threading.Event()
        self.closed = threading.Event()

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """Prints a prompt, then reads all keys once it may."""
        yield b"login: "
        try:
            await asyncio.to_thread(self.reads_keys.wait)
            async for data in keys:
                self.keys_read += data if isinstance(data, bytes) else b""
                yield b"."
        finally:
            self.closed.set()


def test_a_console_shows_output_and_passes_on_keys_and_sizes(site: Site, viewers: list[Viewer]) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    first, second = open_viewer(site, viewers, web.meta.id), open_viewer(site, viewers, web.meta.id)
    first.type(b"root\r")
    first.until(b"ROOT\r")
    first.resize(24, 80)
    first.until(b"24x80")
    second.type(b"whoami")
    second.until(b"WHOAMI")
    assert bytes(first.output) == b"login: ROOT\r24x80"


@pytest.mark.slow
def test_a_console_of_an_unknown_or_offline_instance_is_refused(site: Site) -> None:
    with pytest.raises(errors.NotFound):
        next(site.client.instances.console("nothing"))
    web = site.running_on_lost_host()
    with pytest.raises(errors.Unavailable, match="host is not connected"):
        next(site.client.instances.console(web.meta.id))


def test_opening_a_console_is_in_the_audit_trail(
    site: Site, viewers: list[Viewer], capsys: pytest.CaptureFixture[str]
) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    open_viewer(site, viewers, web.meta.id, reason="it does not boot").type(b"x")
    capsys.readouterr()
    show_audit_trail(site.cloud.settings, web.meta.id, days=1)
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(entry["method"], entry["caller"], entry["target_name"], entry.get("reason")) for entry in logged] == [
        ("CreateInstance", "admin", "web", None),
        ("ConsoleInstance", "admin", "web", "it does not boot"),
    ]
    assert "operation" not in logged[-1]


# Offset, keys, result: the number of bytes accepted so far, or the error's reason and the next offset.
KEYS = """
    0  hello  5
    0  hello  5            repeated
    2  llo    5            repeated in part
    3  lo!    6            repeated in part, and one more
    9  late   CONSOLE_GAP:6
    6  .      7
    -1 x      INVALID_ARGUMENT:
"""


def test_keys_are_accepted_in_order_and_once(site: Site, viewers: list[Viewer]) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    viewer = open_viewer(site, viewers, web.meta.id)
    for line in KEYS.strip().splitlines():
        offset, keys, wanted, *_ = line.split()
        assert viewer.try_send(int(offset), keys.encode()) == wanted
    viewer.send(7, b"$")
    viewer.until(b"$")
    assert bytes(viewer.output) == b"login: HELLO!.$"


def test_a_paste_arrives_in_order_and_a_larger_one_is_refused(site: Site, viewers: list[Viewer]) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    viewer = open_viewer(site, viewers, web.meta.id)
    paste = b"".join(b"%07d\n" % number for number in range(1 << 13))
    assert len(paste) == 64 << 10
    with pytest.raises(errors.Invalid, match="65536 at most"):
        viewer.send(0, paste + b"x")
    for _ in range(3):
        viewer.type(paste)
    viewer.type(b"$")
    viewer.until(b"$")
    assert bytes(viewer.output) == b"login: " + 3 * paste + b"$"


def test_keys_wait_for_an_instance_that_reads_none_and_none_is_lost(
    site: Site, viewers: list[Viewer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr("kowa.calls.OPTIONS", [("grpc.enable_retries", 0)])
    site.connect_host(host := PausedWorker())
    web = site.client.instances.create(site.wanted("web"))
    viewer, paste = open_viewer(site, viewers, web.meta.id), bytes(range(256)) * 256
    results = [viewer.try_send(viewer.accepted_bytes, paste) for _ in range(4)]
    assert results[0] == str(len(paste))
    assert results[-1] == "BUSY:"
    host.reads_keys.set()
    until(lambda: len(host.keys_read) == viewer.accepted_bytes, what="the keys")
    viewer.type(b"$")
    until(lambda: host.keys_read.endswith(b"$"), what="the last key")
    assert host.keys_read == paste * (viewer.accepted_bytes // len(paste)) + b"$"


def test_a_console_belongs_to_its_caller_and_instance() -> None:
    def ask(agent: str, ticket: str, instance: str) -> asyncio.Event | None:
        tickets.append(ticket)
        asked.set()
        return host if agent else None

    async def run() -> None:
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
        assert isinstance(consoles.find_own("ann", "web", tickets[0]), Console)
        for caller, instance, session in (("bob", "web", tickets[0]), ("ann", "db", tickets[0]), ("ann", "web", "?")):
            with pytest.raises(Refusal) as refused:
                consoles.find_own(caller, instance, session)
            assert refused.value.reason == "NOT_FOUND"
        await opening.__aexit__(None, None, None)
        with pytest.raises(Refusal, match="has ended"):
            consoles.find_own("ann", "web", tickets[0])

    tickets: list[str] = []
    asked, host = asyncio.Event(), asyncio.Event()
    asyncio.run(run())


@pytest.mark.parametrize("party", ["viewer", "agent", "Kahuna", "instance"])
def test_a_console_ends_for_all_when_one_party_ends(site: Site, viewers: list[Viewer], party: str) -> None:
    class ExitingHost(PausedWorker):
        async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
            async for data in super().console(instance, keys):
                yield data
                if self.keys_read == b"exit":
                    raise Refused("its host has lost it")

    host = ExitingHost()
    host.reads_keys.set()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    viewer = open_viewer(site, viewers, web.meta.id)
    instances, session = site.client.instances, viewer.session
    end_of: dict[str, Callable[[], object]] = {
        "viewer": viewer.leave,
        "agent": lambda: site.cloud.disconnect(agent),
        "Kahuna": site.cloud.stop,
        "instance": lambda: viewer.type(b"exit"),
    }
    reason = {"agent": "session has ended", "Kahuna": "", "instance": "its host has lost it", "viewer": "closed"}[party]
    end_of[party]()
    until(viewer.has_ended, what="the viewer's end")
    assert reason in viewer.error
    assert viewer.error
    until(host.closed.is_set, what="the host's end")
    if party == "Kahuna":
        site.cloud.start()
        instances = site.client.instances
    with pytest.raises(errors.NotFound, match="no such console, or it has ended"):
        instances.type_console(web.meta.id, session=session, data=b"x")


class FloodingWorker(FakeWorker):
    """Its instance prints without a pause while `floods` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.printed, self.keys_read = 0, b""
        self.floods = threading.Event()
        self.floods.set()

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """Floods the viewer, and reads keys meanwhile; without `floods`, echoes in capitals."""
        if not self.floods.is_set():
            async for data in super().console(instance, keys):
                yield data
        reading = asyncio.create_task(self._read_keys(keys))
        try:
            while True:
                self.printed += CHUNK
                yield bytes(CHUNK)
        finally:
            reading.cancel()

    async def _read_keys(self, keys: Keys) -> None:
        async for data in keys:
            self.keys_read += data if isinstance(data, bytes) else b""

    def has_paused(self) -> bool:
        """Whether nothing has been printed for a while."""
        before = self.printed
        threading.Event().wait(0.3)
        return before == self.printed


def test_a_console_without_a_reader_waits_and_does_not_slow_others(site: Site, viewers: list[Viewer]) -> None:
    host = FloodingWorker()
    site.connect_host(host)
    web = site.client.instances.create(site.wanted("web"))
    # The client buffers little.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10)]
    with grpc.insecure_channel(site.cloud.settings.api, options) as channel:
        call: Any = channel.unary_stream(
            "/kowa.v2.InstanceService/ConsoleInstance",
            instance_pb2.ConsoleInstanceRequest.SerializeToString,
            instance_pb2.ConsoleInstanceResponse.FromString,
        )
        auth = (("authorization", f"Bearer {site.cloud.key}"),)
        unread = [call(instance_pb2.ConsoleInstanceRequest(id=web.meta.id), metadata=auth) for _ in range(8)]
        sessions = [next(shown).session for shown in unread]
        until(host.has_paused, what="the host to wait for its readers")
        assert host.printed < len(unread) * MIB
        host.floods.clear()
        viewer = open_viewer(site, viewers, web.meta.id)
        viewer.type(b"root")
        viewer.until(b"ROOT")
        assert site.client.instances.reboot(web.meta.id)
        site.client.instances.type_console(web.meta.id, session=sessions[0], data=b"^C")
        until(lambda: host.keys_read == b"^C", what="the keys of a viewer that does not read")
        for shown in unread[1:]:
            shown.cancel()
        assert next(unread[0]).data
