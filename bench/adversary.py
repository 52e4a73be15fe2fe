"""What one that misbehaves costs the others: an honest agent's commit to ack, Kahuna's memory and its processor time.

Each row has its floor beside it: the same figure without the adversary. Where many connections are opened, an echo on a
bare server under as many of them is another one. Kahuna runs in this process, the honest agent and the adversaries in
others.
"""

import asyncio
import contextlib
import itertools
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import structlog
import uvloop

from bench.commit_to_ack import SHARED_MEMORY, ChangeTimer, in_background, in_fresh_process, resident, run_agents
from bench.figure import HEADER, Figure, at_most, quantile
from kahuna.security import certificates, keys
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.console import RELAY
from kowa.runtime.session import CONNECT
from kowa.v2 import instance_pb2, kaktus_pb2, meta_pb2, project_pb2, zone_pb2
from tests.control_plane import ControlPlane
from tests.fleet.many_agents import create_hosts

SECONDS, PAUSE_S = 8.0, 0.02  # of changes under each adversary, and between two of them
WARM_UP_S = 2.0
FLAPPING, FLAPS_PER_SECOND, CONSOLES = 200, 150, 8
SILENT, REFUSED = 1100, 1000
REFUSED_SETTLE_S = 40.0  # after all of them were refused for the first time
MAX_GROWTH_MB, MAX_SHARE = 64, 5.0
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 8 << 20))


class Target(NamedTuple):
    """What an adversary dials, and the tokens that it holds; its first agent has a machine with a console."""

    endpoint: str
    ca: bytes
    secrets: Sequence[str]
    api: str
    key: str
    machine: str


def figures() -> list[Figure]:
    """All figures of this bench."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as name:
        opens = in_fresh_process(_measure_floor, Path(name) / "floor")
        return in_fresh_process(_measure, Path(name) / "kahuna", opens)


def _measure(folder: Path, under_opens: float) -> list[Figure]:
    """The figures. `under_opens` is the p99 in ms of a bare server's echo under as many opens as of those flapping."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    folder.mkdir()
    cloud = ControlPlane(folder)
    zone = cloud.add_zone(cloud.add_region())
    honest, *others = create_hosts(cloud, zone.meta.id, 1 + FLAPPING)
    ca = (folder / "ca.pem").read_bytes()
    machine = _add_machine(cloud, zone, "crowd-1")
    target = Target(cloud.fleet_endpoint, ca, others, cloud.settings.api, cloud.key, machine)
    timer = ChangeTimer(cloud.kahuna.fleet)
    found: list[Figure] = []
    with in_background(run_agents, cloud.fleet_endpoint, folder, [honest]):
        cloud.loop.run(timer.await_all(cloud.kahuna.store.view.revision, 1))
        (session,) = cloud.kahuna.fleet.sessions.values()
        host = next(one for one in cloud.client.of(kaktus_pb2.Kaktus).list() if one.agent == session.agent)

        def p99_and_memory() -> tuple[float, float]:
            """The p99 in ms of changes of the honest host, and the largest resident memory in MB meanwhile."""
            end, taken, most = time.monotonic() + SECONDS, [], 0
            while time.monotonic() < end:
                taken.append(cloud.loop.run(timer.change("Kaktus", host, 1)))
                most = max(most, resident())
                time.sleep(PAUSE_S)
            return quantile(taken, 0.99) * 1e3, most / 1e6

        p99_and_memory()  # warms up
        for name, attack in ATTACKS.items():
            quiet, memory = p99_and_memory()
            with in_background(attack, target):
                time.sleep(WARM_UP_S)
                p99, most = p99_and_memory()
            growth = most - memory
            bound = max(3 * quiet, 2 * under_opens) if attack is flap else 3 * quiet
            found.append(at_most(f"{name}, honest commit to ack, p99", p99, "ms", bound, quiet))
            found.append(at_most(f"{name}, Kahuna's growth", growth, "MB", MAX_GROWTH_MB))
        found.append(at_most("bare echo under as many opens as flapping, p99", under_opens, "ms", float("inf")))
        found.append(_share_of_the_refused(cloud, folder))
    cloud.close()
    return found


def _add_machine(cloud: ControlPlane, zone: zone_pb2.Zone, host: str) -> str:
    """Adds a machine to a host, and returns its id."""
    project = cloud.client.of(project_pb2.Project).create(project_pb2.Project(name="shop")).meta.id
    kaktus = next(one.meta.id for one in cloud.client.of(kaktus_pb2.Kaktus).list() if one.name == host)
    machine = instance_pb2.Instance(project=project, name="web", vcpus=1, memory=1 << 30)
    machine.region, machine.zone, machine.kaktus = zone.region, zone.meta.id, kaktus
    return cloud.loop.run(cloud.kahuna.store.run(lambda tx: tx.add("Instance", machine))).meta.id


def _share_of_the_refused(cloud: ControlPlane, folder: Path) -> Figure:
    """Kahuna's share of a core for agents whose tokens are no good, and who retry for ever, beyond its idle one."""

    def share(seconds: float) -> float:
        started, used = time.monotonic(), time.process_time()
        time.sleep(seconds)
        return (time.process_time() - used) / (time.monotonic() - started) * 100

    idle = share(SECONDS)
    unknown = [keys.generate(keys.AGENT) for _ in range(REFUSED)]
    state = folder / "refused"
    state.mkdir()
    (state / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    with in_background(run_agents, cloud.fleet_endpoint, state, unknown):
        time.sleep(REFUSED_SETTLE_S)
        return at_most(f"{REFUSED} refused agents retry, of a core", share(2 * SECONDS) - idle, "%", MAX_SHARE)


# The adversaries, each in a process of its own until killed.


def flood_foreign(target: Target) -> None:
    """Reports of things that nobody knows, as many as a message holds."""
    ids = [fleet_pb2.Report(id=str(uuid.uuid4())) for _ in range(15_000)]
    _flood(target, lambda _: fleet_pb2.Reports(reports=ids))


def flood_one(target: Target) -> None:
    """The same report of its own host, as often as a message holds it."""

    def reports(own: fleet_pb2.Object) -> fleet_pb2.Reports:
        resource = resources.pack(kaktus_pb2.Kaktus(status=kaktus_pb2.KaktusStatus(cpus=1)))
        return fleet_pb2.Reports(reports=[_report(own, resource)] * 7000)

    _flood(target, reports)


def flood_conditions(target: Target) -> None:
    """One report with as many conditions as a message holds."""

    def reports(own: fleet_pb2.Object) -> fleet_pb2.Reports:
        conditions = [meta_pb2.Condition(type=f"C{number}", reason="X", message="x" * 64) for number in range(11_000)]
        resource = resources.pack(kaktus_pb2.Kaktus(meta=meta_pb2.Meta(conditions=conditions)))
        return fleet_pb2.Reports(reports=[_report(own, resource)])

    _flood(target, reports)


def flood_holdings(target: Target) -> None:
    """Signs in again and again with as many foreign holdings as are taken."""

    async def run() -> None:
        incarnation = ""
        while True:
            async with _channel(target.endpoint, target.ca) as channel:
                call = _connect(channel, target.secrets[0])
                await _send(call, hello=fleet_pb2.Hello(protocol=1, incarnation=incarnation))
                first = await call.read()
                if isinstance(first, fleet_pb2.ConnectResponse) and first.HasField("welcome"):
                    incarnation = first.welcome.incarnation
                    for part in range(6):
                        items = [fleet_pb2.Holding(id=str(uuid.uuid4()), generation=1) for _ in range(15_000)]
                        await _send(call, holdings=fleet_pb2.Holdings(holdings=items, last=part == 5))
                    await call.read()

    uvloop.run(run())


def print_unread(target: Target) -> None:
    """Consoles that nobody reads, into which the host prints as much as it can, and opens them again when they end."""

    async def relay(channel: grpc.aio.Channel, ticket: str) -> None:
        open_relay: Any = channel.stream_stream(RELAY, fleet_pb2.RelayRequest.SerializeToString)
        metadata = (("authorization", f"Bearer {target.secrets[0]}"),)
        call, data = open_relay(metadata=metadata), bytes(64 << 10)
        await call.write(fleet_pb2.RelayRequest(ticket=ticket))
        while True:
            await call.write(fleet_pb2.RelayRequest(data=data))

    async def view(channel: grpc.aio.Channel) -> None:
        show: Any = channel.unary_stream(
            "/kowa.v2.InstanceService/ConsoleInstance", instance_pb2.ConsoleInstanceRequest.SerializeToString
        )
        while True:
            request = instance_pb2.ConsoleInstanceRequest(id=target.machine)
            call = show(request, metadata=(("authorization", f"Bearer {target.key}"),))
            await call.read()
            await asyncio.sleep(1)  # it reads nothing of what is printed
            call.cancel()

    async def run() -> None:
        async with _channel(target.endpoint, target.ca) as channel, grpc.aio.insecure_channel(target.api) as api:
            call = _connect(channel, target.secrets[0])
            await _sign_in(call)
            tasks = {asyncio.create_task(_repeat(lambda: view(api))) for _ in range(CONSOLES)}
            while True:
                if (response := await call.read()).HasField("console"):
                    tasks.add(asyncio.create_task(_whatever_comes(relay(channel, response.console.ticket))))

    uvloop.run(run())


def stay_silent(target: Target) -> None:
    """Opens connections, and opens another for each that is closed."""
    host, port = target.endpoint.split(":")

    def stay() -> None:
        while True:
            with socket.create_connection((host, int(port))) as connection:
                connection.recv(1)

    for _number in range(SILENT):
        threading.Thread(target=stay, daemon=True).start()
    threading.Event().wait()


def flap(target: Target) -> None:
    """Many agents that sign in and go at once, and take no goodbye seriously."""

    async def once(secret: str) -> None:
        async with _channel(target.endpoint, target.ca) as channel:
            call = _connect(channel, secret)
            await _send(call, hello=fleet_pb2.Hello(protocol=1))
            await _send(call, holdings=fleet_pb2.Holdings(last=True))
            await call.read()

    uvloop.run(_at_rate(lambda number: once(target.secrets[number % len(target.secrets)])))


ATTACKS: dict[str, Callable[[Target], None]] = {
    "reports of foreign ids": flood_foreign,
    "one id in all reports": flood_one,
    "endless conditions": flood_conditions,
    "foreign holdings": flood_holdings,
    f"{CONSOLES} consoles that nobody reads": print_unread,
    f"{SILENT} silent connections": stay_silent,
    f"{FLAPPING} agents flapping": flap,
}


def _flood(target: Target, reports: Callable[[fleet_pb2.Object], fleet_pb2.Reports]) -> None:
    async def run() -> None:
        async with _channel(target.endpoint, target.ca) as channel:
            call = _connect(channel, target.secrets[0])
            batch = await _sign_in(call)
            own = next(one for one in batch.objects if resources.noun_of(one.resource) == "kaktus")
            message = reports(own)
            while True:
                await _send(call, reports=message)

    uvloop.run(run())


async def _sign_in(call: Any) -> fleet_pb2.Batch:
    """Signs an agent in, and acks its slice."""
    await _send(call, hello=fleet_pb2.Hello(protocol=1))
    await call.read()
    await _send(call, holdings=fleet_pb2.Holdings(last=True))
    batch: fleet_pb2.Batch = (await call.read()).batch
    await _send(call, ack=fleet_pb2.Ack(nonce=batch.nonce))
    return batch


def _report(own: fleet_pb2.Object, resource: Any) -> fleet_pb2.Report:
    applied = fleet_pb2.OUTCOME_APPLIED
    return fleet_pb2.Report(id=own.id, observed_generation=own.generation, resource=resource, outcome=applied)


def _channel(endpoint: str, ca: bytes) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(ca), options=OPTIONS)


def _connect(channel: grpc.aio.Channel, secret: str) -> Any:
    connect: Any = channel.stream_stream(
        CONNECT, fleet_pb2.ConnectRequest.SerializeToString, fleet_pb2.ConnectResponse.FromString
    )
    return connect(metadata=(("authorization", f"Bearer {secret}"),))


async def _send(call: Any, **message: Any) -> None:
    await call.write(fleet_pb2.ConnectRequest(**message))


async def _at_rate(once: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Starts as many a second as agents flap, whatever becomes of them."""
    running: set[asyncio.Task[Any]] = set()
    for number in itertools.count():
        await asyncio.sleep(1 / FLAPS_PER_SECOND)
        running = {task for task in running if not task.done()}
        if len(running) < FLAPPING:
            running.add(asyncio.create_task(_whatever_comes(once(number))))


async def _repeat(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await _whatever_comes(work())


async def _whatever_comes(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
        async with asyncio.timeout(10):
            await work


# The floor.


def _measure_floor(folder: Path) -> float:
    """The p99, in ms, of an echo on a bare server while as many connections are opened as agents flap."""
    folder.mkdir()
    files = certificates.ensure(folder, ["localhost"])

    async def run() -> float:
        async def echo(requests: Any, context: Any) -> None:
            async for request in requests:
                await context.write(request)

        server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
        key = (files.key.read_bytes(), files.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([key]))
        await server.start()
        endpoint, ca, taken = f"localhost:{port}", files.ca.read_bytes(), []
        async with _channel(endpoint, ca) as channel:
            connect: Any = channel.stream_stream("/bench.Echo/Echo")
            call = connect()
            with in_background(_open_and_echo, endpoint, ca):
                await asyncio.sleep(WARM_UP_S)
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    started = time.perf_counter()
                    await call.write(b"x" * 200)
                    await call.read()
                    taken.append(time.perf_counter() - started)
                    await asyncio.sleep(PAUSE_S)
        await server.stop(0)
        return quantile(taken, 0.99) * 1e3

    return uvloop.run(run())


def _open_and_echo(endpoint: str, ca: bytes) -> None:
    async def once(_: int) -> None:
        async with _channel(endpoint, ca) as channel:
            connect: Any = channel.stream_stream("/bench.Echo/Echo")
            call = connect()
            await call.write(b"x" * 60)
            await call.read()

    uvloop.run(_at_rate(once))


if __name__ == "__main__":
    print(HEADER, *figures(), sep="\n")
