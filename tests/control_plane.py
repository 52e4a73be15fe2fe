"""A real Kahuna on a database of its own, and agents that dial in over real TLS for hosts they only pretend."""

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

LIMIT = 60  # seconds; what takes long on a busy machine is no failure
GIB = 1 << 30
T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs to the end, from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(LIMIT)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Starts in the loop."""

        async def begin() -> "asyncio.Task[T]":
            return asyncio.create_task(coroutine)

        return self.run(begin())

    def stop(self, task: "asyncio.Task[Any]") -> None:
        """Cancels and waits for the end."""

        async def end() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        self.run(end())

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        self._loop.close()


class FakeHost(Worker):
    """A worker that reports everything it is told as applied, `frozen` kinds apart."""

    def __init__(self, cpus: int = 8, memory: int = 16 * GIB) -> None:
        self.cpus, self.memory = cpus, memory
        self.frozen: set[str] = set()
        self.refuses = ""
        self.failures: dict[str, str] = {}
        self.powered_off: set[str] = set()
        self.done: list[tuple[str, str]] = []
        self.refuses_commands = ""
        self.hangs = threading.Event()
        self.wanted: dict[str, fleet_pb2.Object] = {}

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Refuses what the test tells it to."""
        if self.refuses:
            raise Refused(self.refuses)

    async def run(self, feed: Feed) -> None:
        """Reports for ever."""
        while True:
            self.wanted = dict(feed.desired())
            for described in self.wanted.values():
                if resources.noun_of(described.resource) not in self.frozen:
                    feed.report(self._report(described))
            await feed.wait_for_change(0.05)

    async def act(self, command: fleet_pb2.Command) -> None:
        """Notes what was asked; fails or hangs when the test tells it to."""
        self.done.append((str(command.WhichOneof("action")), command.target))
        if self.hangs.is_set():
            await asyncio.Event().wait()
        if self.refuses_commands:
            raise Refused(self.refuses_commands)

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """A machine that answers in capitals, and says how large its terminal is."""
        yield b"login: "
        async for data in keys:
            yield f"{data.rows}x{data.columns}".encode() if isinstance(data, fleet_pb2.TerminalSize) else data.upper()

    def status_of(self, noun: str) -> Any:
        """What is seen of a kind, if the test says so."""
        return None

    def _report(self, described: fleet_pb2.Object) -> fleet_pb2.Report:
        wanted = resources.unpack(described.resource)
        seen = type(wanted)()
        if isinstance(seen, kaktus_pb2.Kaktus):
            status = kaktus_pb2.KaktusStatus(cpus=self.cpus, memory=self.memory, architecture="x86_64")
            seen.status.CopyFrom(status)
        if status := self.status_of(resources.noun_of(described.resource)):
            seen.status.CopyFrom(status)  # type: ignore[attr-defined]
        if isinstance(wanted, instance_pb2.Instance) and isinstance(seen, instance_pb2.Instance):
            seen.status.power = wanted.power or instance_pb2.POWER_RUNNING
            if described.id in self.powered_off:
                seen.status.power = instance_pb2.POWER_STOPPED
                seen.meta.conditions.add(type="GuestPoweredOff", reason="GUEST_POWERED_OFF")
        failure = self.failures.get(described.id, "")
        return fleet_pb2.Report(
            id=described.id,
            observed_generation=described.generation,
            gone=described.gone,
            resource=resources.pack(seen),
            outcome=fleet_pb2.OUTCOME_FAILED if failure else fleet_pb2.OUTCOME_APPLIED,
            message=failure,
        )


class ControlPlane:
    """One Kahuna, in this process, and clients and agents of it."""

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
        # The ports stay the same over a restart, as they do for real.
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

    def region(self, name: str = "eu") -> region_pb2.Region:
        """A region."""
        return self.client.of(region_pb2.Region).create(region_pb2.Region(name=name))

    def zone(self, region: region_pb2.Region, name: str = "eu-a") -> zone_pb2.Zone:
        """A zone."""
        return self.client.of(zone_pb2.Zone).create(zone_pb2.Zone(region=region.meta.id, name=name))

    def agent(self, name: str = "agent-1") -> tuple[agent_pb2.Agent, str]:
        """An agent and its secret."""
        agent = self.client.of(agent_pb2.Agent).create(agent_pb2.Agent(name=name))
        token = agent_token_pb2.AgentToken(agent=agent.meta.id, name="first")
        return agent, self.client.of(agent_token_pb2.AgentToken).create(token).secret

    def host(self, zone: zone_pb2.Zone, name: str = "host-1", agent: str = "") -> kaktus_pb2.Kaktus:
        """A host's record."""
        record = kaktus_pb2.Kaktus(zone=zone.meta.id, name=name, agent=agent)
        return self.client.of(kaktus_pb2.Kaktus).begin_create(record).resource

    def dial(self, secret: str, worker: FakeHost, state: str = "state") -> "asyncio.Task[None]":
        """Starts an agent."""
        token = self.folder / f"{state}.token"
        token.write_text(secret)

        async def run() -> None:
            ca = self.folder / "ca.pem"
            settings = AgentSettings(server=self.fleet_endpoint, ca=ca, token=token, state=self.folder / state)
            await Agent(worker, settings).run()

        task = self.loop.start(run())
        self._agents.append(task)
        return task

    def disconnect(self, task: "asyncio.Task[None]") -> None:
        """Stops an agent."""
        self._agents.remove(task)
        self.loop.stop(task)

    def fleet_sessions(self) -> list[str]:
        """The agents connected."""
        online = agent_pb2.Stream.Name(agent_pb2.STREAM_ONLINE)
        return [agent.name for agent in self.client.of(agent_pb2.Agent).list(filter=f"status.stream = {online}")]

    @property
    def fleet_endpoint(self) -> str:
        """Where agents dial in; the certificate is for the name."""
        return f"localhost:{self.kahuna.fleet_port}"


_ENGINES: list[Engine] = []
_STATEMENTS: CompiledCacheType = {}


def _share_compiled_statements(engine: Engine) -> None:
    """Has SQLAlchemy compile a statement once for all Kahunas of a run on SQLite: it takes half of a start.

    It keeps what it has compiled by dialect, of which each engine has its own.
    """
    _ENGINES[:] = _ENGINES or [engine]
    engine.dialect = _ENGINES[0].dialect
    engine.update_execution_options(compiled_cache=_STATEMENTS)


@functools.cache
def _files_of_a_new_kahuna() -> dict[str, bytes]:
    """The files that a new Kahuna on SQLite makes before it first serves, made once for all tests of a run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maintenance.generate_admin_key(Settings(state=folder), folder / "admin.key")
        certificates.ensure(folder, ["localhost"])
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def control_plane(folder: Path, database: str = "") -> Iterator[ControlPlane]:
    """A Kahuna for the time of a test."""
    made = ControlPlane(folder, database)
    try:
        yield made
    finally:
        made.close()
