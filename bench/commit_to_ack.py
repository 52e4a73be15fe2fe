"""Seconds from a commit to the ack of the agent that has stored it, against an echo on as many bare streams.

Kahuna runs in this process; its agents, with TLS and a store each, in a second one.
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
import structlog
import uvloop
from sqlalchemy import event

from bench.figure import HEADER, Figure, at_most, quantile
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.session import Session
from kahuna.security import certificates
from kahuna.store.transaction import Transaction
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.agent import Agent
from kowa.runtime.settings import AgentSettings
from kowa.v2 import kaktus_pb2, vnet_pb2
from tests.control_plane import ControlPlane, FakeWorker
from tests.fleet.many_agents import create_hosts

T = TypeVar("T")

CHANGES, TO_ALL = 200, 5
ECHO = "/bench.Echo/Echo"
# Agents have a disk each for their stores; here they would share one, so the stores are in memory.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a random name in it


class PassiveWorker(FakeWorker):
    """A host that stores its slice and changes nothing."""

    async def run(self, feed: object) -> None:
        await asyncio.Event().wait()


def figures(counts: Sequence[int] = (1, 100, 1000)) -> list[Figure]:
    """All figures of this bench, for each number of connected agents."""
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as folder:
            floor = in_fresh_process(measure_floor, Path(folder) / "floor", count)
            one, to_all, memory = in_fresh_process(measure, Path(folder) / "kahuna", count)
        for share, bound in ((0.5, 20), (0.99, 50)):
            value, base = quantile(one, share) * 1e3, quantile(floor, share) * 1e3
            found.append(at_most(f"commit to ack, {count} agents, p{share * 100:.0f}", value, "ms", bound, base))
        found.append(at_most(f"one change to all, {count} agents, p50", quantile(to_all, 0.5), "s", 1))
    found.append(at_most(f"Kahuna's memory an agent, {counts[-1]} agents", memory / 1e3, "kB", 128))
    return found


def in_fresh_process(work: Callable[..., T], *arguments: Any) -> T:
    """Runs a function in a process of its own, so that an earlier run does not affect it. Returns its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Kahuna and its agents.


def measure(folder: Path, count: int) -> tuple[list[float], list[float], float]:
    """Seconds from commit to ack for changes of one host, and for changes to all, and bytes of Kahuna an agent."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    folder.mkdir()
    cloud = ControlPlane(folder)
    region = cloud.add_region()
    zone = cloud.add_zone(region)
    secrets = create_hosts(cloud, zone.meta.id, count)
    vnet = cloud.client.of(vnet_pb2.Vnet).create(vnet_pb2.Vnet(region=region.meta.id, name="lan"))
    timer = ChangeTimer(cloud.kahuna.fleet)
    before = resident()
    with in_background(run_agents, cloud.fleet_endpoint, folder, secrets):
        cloud.loop.run(timer.await_all(cloud.kahuna.store.view.revision, count))
        memory = (resident() - before) / count
        hosts = list(cloud.client.of(kaktus_pb2.Kaktus).list())
        singles = [cloud.loop.run(timer.change("Kaktus", hosts[number % count], 1)) for number in range(CHANGES)]
        to_all = [cloud.loop.run(timer.change("Vnet", vnet, count)) for _ in range(TO_ALL)]
    cloud.close()
    return singles, to_all, memory


class ChangeTimer:
    """Changes resources, and waits until the agents have stored the changes."""

    def __init__(self, sessions: Fleet) -> None:
        self._store, self._sessions = sessions.store, sessions.sessions
        self._committed = 0.0
        self._acked: list[tuple[str, int]] = []
        self._acked_more = asyncio.Event()
        stored = Session.batch_stored

        def note_ack(session: Session, objects: Any, removed: Any, revision: int) -> None:
            stored(session, objects, removed, revision)
            self._acked.extend((described.id, described.generation) for described in objects)
            self._acked_more.set()

        Session.batch_stored = note_ack  # type: ignore[method-assign, assignment]

    async def await_all(self, revision: int, count: int) -> None:
        """Returns when all agents are connected and have stored their slice of a revision."""
        while sum(session.held_revision >= revision for session in self._sessions.values()) < count:
            await self._next()
        self._acked.clear()

    async def change(self, kind: str, resource: Any, times: int) -> float:
        """Changes a resource. Returns the seconds from the commit until this number of agents have stored it."""

        def note_commit(session: object) -> None:
            self._committed = time.perf_counter()

        def work(tx: Transaction) -> Any:
            event.listen(tx.session, "after_commit", note_commit)
            changed: Any = tx.get(kind, resource.meta.id)
            changed.description = f"{time.time_ns()}"
            changed = tx.put(kind, changed)
            return changed.meta.generation

        generation = await self._store.run(work)
        wanted = resource.meta.id, generation
        while self._acked.count(wanted) < times:
            await self._next()
        took = time.perf_counter() - self._committed
        self._acked.clear()
        return took

    async def _next(self) -> None:
        self._acked_more.clear()
        await self._acked_more.wait()


def run_agents(endpoint: str, folder: Path, secrets: Sequence[str]) -> None:
    """Runs agents until killed."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    agents = []
    for number, secret in enumerate(secrets):
        token = folder / f"token-{number}"
        token.write_text(secret)
        state = folder / f"agent-{number}"
        agents.append(AgentSettings(servers=(endpoint,), ca=folder / "ca.pem", token=token, state=state))

    async def run() -> None:
        running = (Agent(PassiveWorker(), settings).run() for settings in agents)
        await asyncio.gather(*running)

    uvloop.run(run())


# The floor.


def measure_floor(folder: Path, count: int) -> list[float]:
    """Seconds from a message on one of many bare streams to its echo."""
    folder.mkdir()
    files = certificates.ensure(folder, ["localhost"])

    async def run() -> list[float]:
        calls: list[tuple[Any, asyncio.Event]] = []
        complete = asyncio.Event()

        async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
            echoed = asyncio.Event()
            calls.append((context, echoed))
            if len(calls) == count:
                complete.set()
            async for _ in requests:
                echoed.set()

        server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(serve)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
        key = (files.key.read_bytes(), files.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([key]))
        await server.start()
        batch = fleet_pb2.Batch(nonce="n" * 32, objects=[fleet_pb2.Object(id="i" * 36)] * 3, last=True)
        message, took = batch.SerializeToString(), []
        with in_background(run_echoes, port, folder / "ca.pem", count):
            await complete.wait()
            for number in range(CHANGES):
                context, echoed = calls[number % count]
                echoed.clear()
                started = time.perf_counter()
                await context.write(message)
                await echoed.wait()
                took.append(time.perf_counter() - started)
        await server.stop(0)
        return took

    return uvloop.run(run())


def run_echoes(port: int, ca: Path, count: int) -> None:
    """Echoes messages on bare streams until killed."""

    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    options = (("grpc.use_local_subchannel_pool", 1),)

    async def echo() -> None:
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options=options) as channel:
            connect: Any = channel.stream_stream(ECHO)
            call = connect()
            while (message := await call.read()) is not grpc.aio.EOF:
                await call.write(message)

    async def run() -> None:
        await asyncio.gather(*(echo() for _ in range(count)), return_exceptions=True)

    uvloop.run(run())


class in_background:  # noqa: N801 - read as a statement
    """Runs a function in a process of its own during the block."""

    def __init__(self, work: Any, *arguments: Any) -> None:
        self._process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)

    def __enter__(self) -> None:
        self._process.start()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


if __name__ == "__main__":
    print(HEADER, *figures([int(count) for count in sys.argv[1:]] or (1, 100, 1000)), sep="\n")
