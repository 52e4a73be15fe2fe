"""The metadata server on a socket: access, malformed requests, timeouts and limits."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from agent_kaktus.kinds import KINDS
from agent_kaktus.metadata import server
from agent_kaktus.metadata.server import Server
from agent_kaktus.metadata.tokens import Tokens
from kowa.runtime.desired import Desired

from .slices import Slice, id_of, slice_with_network

MAC = "02:00:00:00:00:01"
TOKENS = Tokens(b"k" * 32)
TOKEN = TOKENS.issue(id_of("web"), 600, int(time.time()))
GET = f"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\nX-metadata-token: {TOKEN}\r\n".encode()
END = b"\r\n"


class ServerForWeb:
    """A server to which every client is the instance `web`."""

    def __init__(self) -> None:
        self.slice = slice_with_network()
        self.slice.adapter("nic", "127.0.0.1", MAC)
        self.slice.instance("web", ("root",), ("nic",))
        self.mac = MAC
        self.asyncio_server: asyncio.Server | None = None
        self.server = Server(lambda: self.desired(), TOKENS)

    def desired(self) -> Desired:
        return KINDS.parse(self.slice.objects)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.asyncio_server is None:
            listener = socket.create_server(("127.0.0.1", 0))
            self.asyncio_server = await self.server.listen(listener, id_of("vnet"), lambda _: self.mac)
        return await asyncio.open_connection(*self.asyncio_server.sockets[0].getsockname())

    async def send(self, request: bytes) -> bytes:
        """Sends a request on a new connection; returns all it receives until that is closed."""
        reader, writer = await self.connect()
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def until_answered(self) -> None:
        while not (await self.send(GET + b"Connection: close\r\n" + END)).endswith(b"web"):
            pass

    async def close(self) -> None:
        if self.asyncio_server is not None:
            self.asyncio_server.close()
        await self.server.close()


def run(scenario: Callable[[ServerForWeb], Awaitable[None]]) -> None:
    async def run_and_close() -> None:
        service = ServerForWeb()
        try:
            async with asyncio.timeout(10):
                await scenario(service)
        finally:
            await service.close()

    asyncio.run(run_and_close())


async def read_response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One response: its status line and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    return head.split(b"\r\n")[0], await reader.readexactly(size)


def test_a_connection_serves_many_requests() -> None:
    async def scenario(service: ServerForWeb) -> None:
        reader, writer = await service.connect()
        for _ in range(3):
            writer.write(GET + END)
            assert await read_response(reader) == (b"HTTP/1.1 200 OK", b"web")
        writer.write(2 * (GET + END))
        assert [await read_response(reader) for _ in range(2)] == 2 * [(b"HTTP/1.1 200 OK", b"web")]
        writer.close()

    run(scenario)


def test_head_is_answered_without_a_body() -> None:
    async def scenario(service: ServerForWeb) -> None:
        response = await service.send(GET.replace(b"GET", b"HEAD") + b"Connection: close\r\n" + END)
        assert response.startswith(b"HTTP/1.1 200 OK")
        assert b"content-length: 3\r\n" in response
        assert response.endswith(b"\r\n\r\n")

    run(scenario)


def test_a_half_closed_connection_is_answered() -> None:
    async def scenario(service: ServerForWeb) -> None:
        reader, writer = await service.connect()
        writer.write(GET + END)
        writer.write_eof()
        assert await read_response(reader) == (b"HTTP/1.1 200 OK", b"web")
        assert await reader.read() == b""
        writer.close()

    run(scenario)


@pytest.mark.parametrize("mac", ["", "02:00:00:00:00:02"])
def test_an_unknown_client_gets_no_byte(mac: str) -> None:
    async def scenario(service: ServerForWeb) -> None:
        service.mac = mac
        assert await service.send(GET + END) == b""

    run(scenario)


def test_a_connection_ends_when_its_address_has_another_instance() -> None:
    async def scenario(service: ServerForWeb) -> None:
        reader, writer = await service.connect()
        writer.write(GET + END)
        await read_response(reader)
        slice_: Slice = service.slice
        slice_.gone("web")
        slice_.instance("db", ("root",), ("nic",))
        writer.write(GET + END)
        assert await reader.read() == b""
        writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host header
        (GET + b"A: b\r\n" * 40 + END, b"431"),
        (GET.replace(b"GET", b"HEAD") + b"A: b\r\n" * 40 + END, b"431"),
        (GET + b"A: " + b"b" * 16_000 + END + END, b"431"),
        (GET + b"Content-Length: 2000\r\n" + END + b"x" * 2000, b"413"),
        (GET + b"Transfer-Encoding: chunked\r\n" + END + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n", b"413"),
        (GET + b"Content-Length: 2\r\nContent-Length: 3\r\n" + END, b"400"),
    ],
)
def test_an_oversized_or_malformed_request_ends_the_connection(request_: bytes, status: bytes) -> None:
    async def scenario(service: ServerForWeb) -> None:
        assert (await service.send(request_)).startswith(b"HTTP/1.1 " + status)

    run(scenario)


def test_a_silent_client_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT_S", 0.1)

    async def scenario(service: ServerForWeb) -> None:
        assert await service.send(GET) == b""
        assert await service.send(b"") == b""

    run(scenario)


def test_a_client_that_does_not_read_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr(server, "MAX_CONNECTIONS_PER_INSTANCE", 1)

    async def scenario(service: ServerForWeb) -> None:
        service.slice.instance("web", ("root",), ("nic",), metadata={str(n): "x" * 100_000 for n in range(64)})
        reader, writer = await service.connect()
        writer.write(GET.replace(b"/hostname", b"") + END)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        await service.until_answered()
        writer.transport.abort()

    run(scenario)


def test_connections_per_instance_are_limited_until_one_closes() -> None:
    async def scenario(service: ServerForWeb) -> None:
        connections = [await service.connect() for _ in range(server.MAX_CONNECTIONS_PER_INSTANCE)]
        for reader, writer in connections:
            writer.write(GET + END)
            await read_response(reader)
        assert await service.send(GET + END) == b""
        connections[0][1].close()
        await service.until_answered()
        for _, writer in connections:
            writer.close()

    run(scenario)


def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 1)

    async def scenario(service: ServerForWeb) -> None:
        reader, writer = await service.connect()
        writer.write(GET + END)
        await read_response(reader)
        assert await service.send(GET + END) == b""
        writer.close()

    run(scenario)
