"""Faults of an agent's consoles, tokens and connection do not end the agent."""

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
from tests.control_plane import FakeWorker, Loop
from tests.fleet.manual_kahuna import ManualKahuna
from tests.site import Site
from tests.waiting import until


def test_a_token_that_is_not_text_ends_the_session_and_the_agent_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kowa.runtime.agent.FIRST_PAUSE_S", 0.02)
    failed: list[str] = []
    monkeypatch.setattr("kowa.runtime.agent.log.exception", failed.append)
    kahuna = ManualKahuna(tmp_path)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", lambda path, _: path.write_bytes(b"\xff\xfe"))
            agent = kahuna.start_agent(FakeWorker())
        until(lambda: bool(failed), what="a session that failed")
        (tmp_path / "token").write_text("token")
        kahuna.session()
        assert not agent.done()
    finally:
        kahuna.close()


class Call:
    """A viewer's stream: it pastes more than the instance reads, and ends."""

    def __init__(self, pasted: int) -> None:
        self.pasted = pasted

    def __call__(self) -> "Call":
        return self

    async def read(self) -> object:
        await asyncio.sleep(0)
        self.pasted -= 1
        return fleet_pb2.RelayResponse(data=b"x") if self.pasted >= 0 else grpc.aio.EOF

    async def write(self, _: object) -> None:
        """Accepted."""

    async def done_writing(self) -> None:
        """Accepted."""

    def cancel(self) -> None:
        """Accepted."""


class Channel:
    def __init__(self, call: Call) -> None:
        self._call = call

    def stream_stream(self, *_: Any) -> Callable[[], Call]:
        return self._call


class PausedWorker(FakeWorker):
    """Its instance reads at most `max_keys` keys."""

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self.max_keys, self.keys_read = max_keys, 0

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        async for _ in keys:
            self.keys_read += 1
            yield b""
            if self.keys_read == self.max_keys:
                await asyncio.Event().wait()


@pytest.mark.parametrize(("max_keys", "pasted", "keys_read"), [(1, 16, 1), (1000, 16, 16)])
def test_the_end_of_a_viewer_is_noticed_while_a_paused_instance_reads_no_keys(
    monkeypatch: pytest.MonkeyPatch, max_keys: int, pasted: int, keys_read: int
) -> None:
    monkeypatch.setattr(console, "LAST_KEYS_TIMEOUT_S", 0.05)

    async def run() -> None:
        host = PausedWorker(max_keys)
        channel = cast("grpc.aio.Channel", Channel(Call(pasted)))
        async with asyncio.timeout(5):
            await serve_console(channel, host, fleet_pb2.Console(ticket="t", instance="web"))
        assert host.keys_read == keys_read

    asyncio.run(run())


class SilentCall(Call):
    """A viewer's stream without any more messages."""

    async def read(self) -> object:
        await asyncio.Event().wait()
        raise AssertionError("nothing comes")


class PrintingWorker(FakeWorker):
    """Its instance prints until the console is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = asyncio.Event()
        self.closed = asyncio.Event()

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"_"
                self.printed.set()
                await asyncio.sleep(0)
        finally:
            self.closed.set()


def test_a_console_open_at_the_end_of_its_session_leaves_no_task_behind() -> None:
    async def run() -> None:
        host = PrintingWorker()
        channel = cast("grpc.aio.Channel", Channel(SilentCall(0)))
        showing = asyncio.create_task(serve_console(channel, host, fleet_pb2.Console(ticket="t", instance="web")))
        await host.printed.wait()
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        assert showing.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert host.closed.is_set()

    asyncio.run(run())


@pytest.mark.parametrize("printed", [[], [b"login: "]])
def test_a_viewer_gets_the_reason_why_a_console_fails_at_once_or_later(site: Site, printed: list[bytes]) -> None:
    class RefusingWorker(FakeWorker):
        async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
            for line in printed:
                yield line
            raise Refused("its disk can't be read")

    site.connect_host(RefusingWorker())
    web = site.client.instances.create(site.wanted("web"))
    with pytest.raises(errors.Conflict, match="its disk can't be read"):
        list(site.client.instances.console(web.meta.id))


class SlowConnection:
    """A proxy to a local port that delays every byte in both directions."""

    def __init__(self, loop: Loop, port: int, seconds: float) -> None:
        self._loop, self._port, self._seconds = loop, port, seconds
        self._tasks: set[asyncio.Task[None]] = set()

        async def listen() -> asyncio.Server:
            return await asyncio.start_server(self._pass_on, "127.0.0.1", 0)

        self._server = loop.run(listen())
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Closes the proxy and its connections."""
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


def test_an_agent_connects_over_a_slow_connection(tmp_path: Path) -> None:
    """Before the first byte, TCP, TLS and HTTP/2 each need a round trip."""
    kahuna = ManualKahuna(tmp_path)
    connection = SlowConnection(kahuna.loop, kahuna.port, 0.2)
    try:
        kahuna.port = connection.port
        kahuna.start_agent(FakeWorker())
        assert kahuna.session().welcome("first incarnation") == []
    finally:
        connection.close()
        kahuna.close()
