"""A real Kahuna on its own database, and agents with fake workers that dial in over real TLS."""

import asyncio
import contextlib
import functools
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import CompiledCacheType

from kahuna import maintenance
from kahuna.security import certificates
from kahuna.serve import Kahuna
from kahuna.settings import Settings
from kowa import files, resources
from kowa.client import Client
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.agent import Agent
from kowa.runtime.feed import Feed, Keys, Refused, Worker
from kowa.runtime.settings import AgentSettings
from kowa.v2 import agent_pb2, agent_token_pb2, instance_pb2, kaktus_pb2, region_pb2, zone_pb2

TIMEOUT_S = 60  # long, since a busy machine is not a failure
GIB = 1 << 30
T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Starts a task in the loop."""

        async def begin() -> "asyncio.Task[T]":
            return asyncio.create_task(coroutine)

        return self.run(begin())

    def stop(self, task: "asyncio.Task[Any]") -> None:
        """Cancels a task and waits for its end."""

        async def end() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        self.run(end())

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        self._loop.close()


class FakeWorker(Worker):
    """A worker that reports all objects as applied, except those of `frozen` kinds."""

    def __init__(self, cpus: int = 8, memory: int = 16 * GIB) -> None:
        self.cpus, self.memory = cpus, memory
        self.frozen: set[str] = set()
        self.slice_error = ""
        self.failures: dict[str, str] = {}
        self.powered_off: set[str] = set()
        self.done: list[tuple[str, str]] = []
        self.command_error = ""
        self.hangs = threading.Event()
        self.wanted: dict[str, fleet_pb2.Object] = {}

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Refuses every slice while the test sets `slice_error`."""
        if self.slice_error:
            raise Refused(self.slice_error)

    async def run(self, feed: Feed) -> None:
        """Reports until cancelled."""
        while True:
            self.wanted = dict(feed.desired())
            for described in self.wanted.values():
                if resources.noun_of(described.resource) not in self.frozen:
                    feed.report(self._report(described))
            await feed.wait_for_change(0.05)

    async def act(self, command: fleet_pb2.Command) -> None:
        """Records the command; hangs or fails if the test sets `hangs` or `command_error`."""
        self.done.append((str(command.WhichOneof("action")), command.target))
        if self.hangs.is_set():
            await asyncio.Event().wait()
        if self.command_error:
            raise Refused(self.command_error)

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """The console of an instance that echoes in capitals, and prints the terminal's size."""
        yield b"login: "
        async for data in keys:
            yield f"{data.rows}x{data.columns}".encode() if isinstance(data, fleet_pb2.TerminalSize) else data.upper()

    def status_of(self, noun: str) -> Any:
        """The status to report for a kind; tests override it."""
        return None

    def _report(self, described: fleet_pb2.Object) -> fleet_pb2.Report:
        wanted = resources.unpack(described.resource)
        observed = type(wanted)()
        if isinstance(observed, kaktus_pb2.Kaktus):
            status = kaktus_pb2.KaktusStatus(cpus=self.cpus, memory=self.memory, architecture="x86_64")
            observed.status.CopyFrom(status)
        if status := self.status_of(resources.noun_of(described.resource)):
            observed.status.CopyFrom(status)  # type: ignore[attr-defined]
        if isinstance(wanted, instance_pb2.Instance) and isinstance(observed, instance_pb2.Instance):
            observed.status.power = wanted.power or instance_pb2.POWER_RUNNING
            if described.id in self.powered_off:
                observed.status.power = instance_pb2.POWER_STOPPED
                observed.status.guest_powered_off = True
                observed.meta.conditions.add(type="GuestPoweredOff", reason="GUEST_POWERED_OFF")
        failure = self.failures.get(described.id, "")
        return fleet_pb2.Report(
            id=described.id,
            observed_generation=described.generation,
            gone=described.gone,
            resource=resources.pack(observed),
            outcome=fleet_pb2.OUTCOME_FAILED if failure else fleet_pb2.OUTCOME_APPLIED,
            message=failure,
        )


class ControlPlane:
    """A Kahuna in this process, with a client and agents."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder = folder
        self.loop = Loop()
        self.settings = Settings(
            state=folder, database=database, api="127.0.0.1:0", fleet="127.0.0.1:0", metrics="", names=["localhost"]
        )
        if database:
            maintenance.generate_admin_key(self.settings, folder / "admin.key")
        else:
            for name, content in _files_of_a_new_kahuna().items():
                files.write(folder / name, content, mode=0o600)
        self.key = (folder / "admin.key").read_text().strip()
        self.secret = ""
        self._agents: list[asyncio.Task[None]] = []
        self.start()

    def start(self) -> None:
        """Starts Kahuna; after `stop`, on the same database."""

        async def begin() -> Kahuna:
            kahuna = Kahuna(self.settings)
            if not self.settings.database:
                _share_compiled_statements(kahuna.store.engine)
            await kahuna.start()
            return kahuna

        self.kahuna = self.loop.run(begin())
        # A restart keeps the ports, as in production.
        self.settings.api = f"127.0.0.1:{self.kahuna.api_port}"
        self.settings.fleet = f"127.0.0.1:{self.kahuna.fleet_port}"
        self.client = Client(self.settings.api, key=self.key, insecure=True)

    def stop(self) -> None:
        """Stops Kahuna."""
        self.client.close()
        self.loop.run(self.kahuna.stop())

    def close(self) -> None:
        """Stops everything."""
        for agent in self._agents:
            self.loop.stop(agent)
        self.stop()
        self.loop.close()

    def add_region(self, name: str = "eu") -> region_pb2.Region:
        """Creates a region."""
        return self.client.of(region_pb2.Region).create(region_pb2.Region(name=name))

    def add_zone(self, region: region_pb2.Region, name: str = "eu-a") -> zone_pb2.Zone:
        """Creates a zone."""
        return self.client.of(zone_pb2.Zone).create(zone_pb2.Zone(region=region.meta.id, name=name))

    def add_agent(self, name: str = "agent-1") -> tuple[agent_pb2.Agent, str]:
        """Creates an agent; returns it and its token's secret."""
        agent = self.client.of(agent_pb2.Agent).create(agent_pb2.Agent(name=name))
        token = agent_token_pb2.AgentToken(agent=agent.meta.id, name="first")
        return agent, self.client.of(agent_token_pb2.AgentToken).create(token).secret

    def add_host(self, zone: zone_pb2.Zone, name: str = "host-1", agent: str = "") -> kaktus_pb2.Kaktus:
        """Creates a host's record."""
        record = kaktus_pb2.Kaktus(zone=zone.meta.id, name=name, agent=agent)
        return self.client.of(kaktus_pb2.Kaktus).begin_create(record).resource

    def dial(self, secret: str, worker: FakeWorker, state: str = "state") -> "asyncio.Task[None]":
        """Starts an agent."""
        token = self.folder / f"{state}.token"
        token.write_text(secret)

        async def run() -> None:
            ca = self.folder / "ca.pem"
            settings = AgentSettings(servers=(self.fleet_endpoint,), ca=ca, token=token, state=self.folder / state)
            await Agent(worker, settings).run()

        task = self.loop.start(run())
        self._agents.append(task)
        return task

    def disconnect(self, task: "asyncio.Task[None]") -> None:
        """Stops an agent."""
        self._agents.remove(task)
        self.loop.stop(task)

    def fleet_sessions(self) -> list[str]:
        """The names of the connected agents."""
        online = agent_pb2.Stream.Name(agent_pb2.STREAM_ONLINE)
        return [agent.name for agent in self.client.of(agent_pb2.Agent).list(filter=f"status.stream = {online}")]

    @property
    def fleet_endpoint(self) -> str:
        """The address that agents dial, with the host name of the certificate."""
        return f"localhost:{self.kahuna.fleet_port}"


_ENGINES: list[Engine] = []
_STATEMENTS: CompiledCacheType = {}


def _share_compiled_statements(engine: Engine) -> None:
    """Makes SQLAlchemy compile a statement once for all Kahunas of a run on SQLite: that is half of a start.

    Its cache is by dialect, and each engine has its own dialect.
    """
    _ENGINES[:] = _ENGINES or [engine]
    engine.dialect = _ENGINES[0].dialect
    engine.update_execution_options(compiled_cache=_STATEMENTS)


@functools.cache
def _files_of_a_new_kahuna() -> dict[str, bytes]:
    """The files that a new Kahuna on SQLite creates before it first serves; created once for all tests of a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maintenance.generate_admin_key(Settings(state=folder), folder / "admin.key")
        certificates.ensure(folder, ["localhost"])
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def control_plane(folder: Path, database: str = "") -> Iterator[ControlPlane]:
    """A Kahuna that stops at the end of the block."""
    cloud = ControlPlane(folder, database)
    try:
        yield cloud
    finally:
        cloud.close()
