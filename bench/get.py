"""Get, authenticated and authorised, against a bare echo; REST through Envoy over direct gRPC."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import uvloop

from bench.echo import UNARY
from bench.figure import HEADER, Figure, at_least, at_most, latencies, quantile, rate
from bench.kahuna import Server, kahuna
from deploy.programs import free_port, listens, running
from kowa.client import Client
from kowa.v2 import region_pb2

ROUNDS, SECONDS, CALLS = 5, 1.5, 400
GET = "/kowa.v2.RegionService/GetRegion"


def figures() -> list[Figure]:
    """All figures of this bench."""
    with kahuna() as server, echo() as floor, gateway(server) as rest:
        with Client(server.api, key=server.key, insecure=True) as client:
            region = client.of(region_pb2.Region).create(region_pb2.Region(name="bench", description="x" * 200))
        return uvloop.run(_measure(server, floor, rest, region))


async def _measure(server: Server, floor: str, rest: str, region: region_pb2.Region) -> list[Figure]:
    bearer = ("authorization", f"Bearer {server.key}")
    request = region_pb2.GetRegionRequest(id=region.meta.id).SerializeToString()
    response = region.SerializeToString()
    async with (
        grpc.aio.insecure_channel(server.api) as channel,
        grpc.aio.insecure_channel(floor) as bare,
    ):
        get_raw: Any = channel.unary_unary(GET)
        echo_raw: Any = bare.unary_unary(UNARY)
        http = await Rest.open(rest, server.key)

        async def get() -> object:
            return await get_raw(request, metadata=(bearer,))

        async def get_echo() -> object:
            return await echo_raw(response)

        async def get_by_rest() -> object:
            return await http.get(f"/api/v2/regions/{region.meta.id}")

        found = []
        for callers in (1, 50):
            value, base = await _alternating_rates(get, get_echo, callers)
            found.append(at_least(f"Get, {callers} at once, against an echo", value, "/s", base / 2, base))
        direct, by_rest = await _p50s(get, get_by_rest)
        found.append(at_most("REST over gRPC at p50", (by_rest - direct) * 1e3, "ms", 0.3))
        return found


class Rest:
    """HTTP/1.1 on a persistent connection, without the overhead of a client library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, key: str) -> None:
        self._reader, self._writer = reader, writer
        self._headers = f"host: {host}\r\nauthorization: Bearer {key}\r\n\r\n"

    @classmethod
    async def open(cls, address: str, key: str) -> "Rest":
        """Connects."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)), address, key)

    async def get(self, path: str) -> bytes:
        """The body of a response. Raises ValueError for any status but 200."""
        self._writer.write(f"GET {path} HTTP/1.1\r\n{self._headers}".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head.decode())
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        return await self._reader.readexactly(length)


async def _alternating_rates(
    ours: Callable[[], Awaitable[object]], floor: Callable[[], Awaitable[object]], callers: int
) -> tuple[float, float]:
    """The median rates of both, measured in alternating rounds."""
    await rate(ours, callers, 0.3)
    rounds = [(await rate(ours, callers, SECONDS), await rate(floor, callers, SECONDS)) for _ in range(ROUNDS)]
    return quantile([ours for ours, _ in rounds], 0.5), quantile([floor for _, floor in rounds], 0.5)


async def _p50s(direct: Callable[[], Awaitable[object]], other: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    await latencies(other, 50)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        taken[0].extend(await latencies(direct, CALLS))
        taken[1].extend(await latencies(other, CALLS))
    return quantile(taken[0], 0.5), quantile(taken[1], 0.5)


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """The address of an echo server, which is the floor."""
    port = free_port()
    with running([sys.executable, "-m", "bench.echo", str(port)], lambda: listens(port), "the echo"):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def gateway(server: Server) -> Iterator[str]:
    """The address of an Envoy with a plain listener."""
    port = free_port()
    plain = f"127.0.0.1:{port}"
    options = [
        "--plain",
        plain,
        "--kahuna",
        server.api,
        "--run-dir",
        str(server.folder / "gateway"),
        "--concurrency",
        "1",
    ]
    with running([sys.executable, "-m", "gateway", *options], lambda: listens(port), "the gateway"):
        yield plain


if __name__ == "__main__":
    print(HEADER, *figures(), sep="\n")
