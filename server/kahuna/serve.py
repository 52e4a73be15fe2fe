"""Kahuna as one process: the store, the API, the fleet's listener, health and metrics."""

import asyncio
import itertools
import random
import resource

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha.reflection import enable_server_reflection
from prometheus_client import Gauge, start_http_server
from sqlmodel import Session, select

from kahuna.access import AccessInterceptor
from kahuna.api.server import ApiHandler
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.reports import Reports
from kahuna.fleet.service import ACCESS, MAX_CALLS, FleetService, refuser
from kahuna.fleet.session import MAX_MESSAGE_BYTES
from kahuna.kinds import command, deletion, tracking
from kahuna.kinds.console import Consoles
from kahuna.kinds.kind import Platform, all_kinds
from kahuna.security import certificates
from kahuna.security.identity import Identities
from kahuna.security.keys import KeyHasher
from kahuna.settings import Settings
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT
from kahuna.store.schema import migrate
from kahuna.store.tables import AdminKey
from kahuna.store.transaction import prune
from kowa.runtime.program import configure_logs, on_stop_signal
from kowa.runtime.tasks import Tasks

log = structlog.get_logger()

SESSIONS = Gauge("kahuna_sessions", "Agents connected.")
REVISION = Gauge("kahuna_revision", "The revision of the view.")

SHUTDOWN_GRACE_S = 2  # for calls under way to end when Kahuna stops
MINUTE_S, HOUR_S = 60, 3600
HOUSEKEEPING_INTERVAL_S = 10
LARGEST_REQUEST_BYTES = 4 << 20  # to the API
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # For TCP, TLS and HTTP/2 together: a connection that stays silent is closed.
    ("grpc.server_handshake_timeout_ms", 10_000),
)
REQUESTS = (("grpc.max_receive_message_length", LARGEST_REQUEST_BYTES),)
MESSAGES = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_concurrent_streams", MAX_CALLS))
# A connected agent always has a stream open, so a connection without one is closed.
IDLE = (("grpc.max_connection_idle_ms", 60_000),)


class Kahuna:
    """One orchestrator on one database. `start` returns when it serves, `stop` when all has ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.database_url)
        self.api_port = self.fleet_port = 0
        self._servers: list[grpc.aio.Server] = []
        self._tasks = Tasks()

    async def start(self) -> None:
        """Starts all parts. Raises SystemExit if a port is taken or the database can't be used."""
        migrate(self.store.engine)
        self.store.load()
        hasher = KeyHasher.from_file(self.settings.state / "secret.key")
        with Session(self.store.engine) as session:
            admin_keys = {key.prefix: key.digest for key in session.exec(select(AdminKey))}
        identities = Identities(self.store.view, hasher, admin_keys)
        consoles = Consoles()
        self.kinds = kinds = all_kinds(Platform(self.store, hasher, consoles, random.SystemRandom()))
        self.fleet = fleet = Fleet(self.store)
        reports = Reports(self.store, kinds)
        await fleet.start()
        for work in (reports.run(), reports.show_dropped(), fleet.watch_streams(), self._housekeeping()):
            self._tasks.spawn(work)

        files = certificates.ensure(self.settings.state, self.settings.names)
        credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.certificate.read_bytes())])
        access = AccessInterceptor(identities, {path: method.access for path, method in CONTRACT.methods.items()})
        api = grpc.aio.server(interceptors=[access], options=KEEPALIVE + REQUESTS)
        api.add_generic_rpc_handlers((ApiHandler(kinds.values(), self.store.view),))
        health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, api)
        enable_server_reflection(CONTRACT.services, api)
        self.api_port = _listen(api, self.settings.api, None)
        if self.settings.api_tls:
            _listen(api, self.settings.api_tls, credentials)

        access = AccessInterceptor(identities, ACCESS, refuser())
        streams = grpc.aio.server(interceptors=[access], options=KEEPALIVE + MESSAGES + IDLE)
        streams.add_generic_rpc_handlers((FleetService(fleet, reports, consoles).handler(),))
        self.fleet_port = _listen(streams, self.settings.fleet, credentials)
        for server in (api, streams):
            await server.start()
            self._servers.append(server)
        await health.set("", health_pb2.HealthCheckResponse.SERVING)
        REVISION.set_function(lambda: self.store.view.revision)
        SESSIONS.set_function(lambda: len(fleet.sessions))
        if self.settings.metrics:
            host, _, port = self.settings.metrics.rpartition(":")
            start_http_server(int(port), host)
        log.info("kahuna.serving", api=self.settings.api, fleet=self.settings.fleet, revision=self.store.view.revision)

    async def stop(self) -> None:
        """Ends the agents' sessions, waits for calls under way, then closes the database."""
        await self.fleet.stop()
        await asyncio.gather(*(server.stop(SHUTDOWN_GRACE_S) for server in self._servers))
        await self._tasks.close()
        await self.store.close()
        log.info("kahuna.stopped")

    async def _housekeeping(self) -> None:
        """Expires commands, and removes gone resources each minute, old operations and audit records each hour."""
        for seconds in itertools.count(0, HOUSEKEEPING_INTERVAL_S):
            try:
                await self.store.persist(command.expire)
                if seconds % MINUTE_S == 0:
                    await self.store.persist(lambda tx: deletion.sweep_marked(tx, deletion.RECHECK_AFTER_US))
                if seconds % HOUR_S == 0:
                    await self.store.persist(prune)
                    while await self.store.persist(tracking.prune):
                        pass
            except Exception as error:  # Error boundary: the next round may succeed
                log.error("housekeeping.failed", exc_info=error)
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT."""

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:  # each connection is an open file
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def serve() -> None:
        kahuna, stop = Kahuna(settings), asyncio.Event()
        on_stop_signal(stop.set)
        await kahuna.start()
        await stop.wait()
        await kahuna.stop()

    configure_logs(as_json=settings.log_json)
    uvloop.run(serve())


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Returns the port listened on, which the system chooses for port 0."""
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise SystemExit(f"kahuna: can't listen on {address}: is the port in use? ({error})") from None
