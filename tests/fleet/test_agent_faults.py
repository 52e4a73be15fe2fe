"""Faults of an agent's consoles, tokens and connection end there, and not the agent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from kowa import errors
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime import console
from kowa.runtime.console import serve_console
from kowa.runtime.feed import Keys, Refused
from tests.control_plane import FakeHost, Loop
from tests.fleet.manual_kahuna import ManualKahuna
from tests.site import Site
from tests.waiting import until


def test_a_token_that_is_no_text_ends_a_session_and_not_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE_S", 0.02)
    failed: list[str] = []
    monkeypatch.setattr("kowa.runtime.agent.log.exception", failed.append)
    kahuna = ManualKahuna(tmp_path)
    try:
        with monkeypatch.context() as spoilt:
            spoilt.setattr(Path, "write_text", lambda path, _: path.write_bytes(b"\xff\xfe"))
            agent = kahuna.agent(FakeHost())
        until(lambda: bool(failed), what="a session that failed")
        (tmp_path / "token").write_text("token")
        kahuna.session()
        assert not agent.done()
    finally:
        kahuna.close()


class Call:
    """A viewer's stream: it pastes more than the machine takes, and leaves."""

    def __init__(self, pasted: int) -> None:
        self.pasted = pasted

    def __call__(self) -> "Call":
        return self

    async def read(self) -> object:
        await asyncio.sleep(0)
        self.pasted -= 1
        return fleet_pb2.RelayResponse(data=b"x") if self.pasted >= 0 else grpc.aio.EOF

    async def write(self, _: object) -> None:
        """Taken."""

    async def done_writing(self) -> None:
        """Taken."""

    def cancel(self) -> None:
        """It is over."""


class Channel:
    def __init__(self, call: Call) -> None:
        self._call = call

    def stream_stream(self, *_: Any) -> Callable[[], Call]:
        return self._call


class Paused(FakeHost):
    """Its machine takes so many keys and no more."""

    def __init__(self, takes: int) -> None:
        super().__init__()
        self.takes, self.took = takes, 0

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        async for _ in keys:
            self.took += 1
            yield b""
            if self.took == self.takes:
                await asyncio.Event().wait()


@pytest.mark.parametrize(("takes", "pasted", "took"), [(1, 16, 1), (1000, 16, 16)])
def test_the_end_of_a_viewer_is_noticed_though_a_paused_machine_reads_no_keys(
    monkeypatch: pytest.MonkeyPatch, takes: int, pasted: int, took: int
) -> None:
    monkeypatch.setattr(console, "LAST_KEYS_TIMEOUT_S", 0.05)

    async def story() -> None:
        host = Paused(takes)
        channel = cast("grpc.aio.Channel", Channel(Call(pasted)))
        async with asyncio.timeout(5):
            await serve_console(channel, host, fleet_pb2.Console(ticket="t", instance="web"))
        assert host.took == took

    asyncio.run(story())


class Silent(Call):
    """A viewer's stream on which nothing comes any more."""

    async def read(self) -> object:
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")


class Blinking(FakeHost):
    """Its machine prints and prints, until nobody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = asyncio.Event()
        self.left = asyncio.Event()

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"_"
                self.watched.set()
                await asyncio.sleep(0)
        finally:
            self.left.set()


def test_a_console_that_is_open_when_its_session_ends_leaves_nothing_behind() -> None:
    async def story() -> None:
        host = Blinking()
        channel = cast("grpc.aio.Channel", Channel(Silent(0)))
        showing = asyncio.create_task(serve_console(channel, host, fleet_pb2.Console(ticket="t", instance="web")))
        await host.watched.wait()
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        assert showing.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert host.left.is_set()

    asyncio.run(story())


@pytest.mark.parametrize("printed", [[], [b"login: "]])
def test_who_asks_for_a_console_is_told_why_there_is_none_or_no_more(site: Site, printed: list[bytes]) -> None:
    class Broken(FakeHost):
        async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
            for line in printed:
                yield line
            raise Refused("its disk can't be read")

    site.connect_host(Broken())
    web = site.client.instances.create(site.wanted("web"))
    with pytest.raises(errors.Conflict, match="its disk can't be read"):
        list(site.client.instances.console(web.meta.id))


class SlowLine:
    """A line to a port of this machine on which every byte is under way for a while, each way."""

    def __init__(self, loop: Loop, port: int, seconds: float) -> None:
        self._loop, self._port, self._seconds = loop, port, seconds
        self._tasks: set[asyncio.Task[None]] = set()

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(self._pass_on, "127.0.0.1", 0)

        self._server = loop.run(listen())
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Cuts it."""
        self._server.close()
        for task in list(self._tasks):
            self._loop.stop(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._delay(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _delay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await source.read(1 << 16):
                loop.call_later(self._seconds, sink.write, data)
        finally:
            loop.call_later(self._seconds, sink.close)


def test_an_agent_connects_over_a_slow_line(tmp_path: Path) -> None:
    """TCP, TLS and HTTP/2 take their turns before the first byte: each lasts there and back."""
    kahuna = ManualKahuna(tmp_path)
    line = SlowLine(kahuna.loop, kahuna.port, 0.2)
    try:
        kahuna.port = line.port
        kahuna.agent(FakeHost())
        assert kahuna.session().welcome("one life of the store") == []
    finally:
        line.close()
        kahuna.close()
