"""An agent: its worker, its session with Kahuna, and the store between them."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping

import grpc
import structlog
import uvloop

from kowa.backoff import Backoff
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.addresses import Addresses
from kowa.runtime.commands import Commands, Journal
from kowa.runtime.feed import Worker
from kowa.runtime.outbox import Outbox
from kowa.runtime.program import configure_logs, on_stop_signal
from kowa.runtime.session import Goodbye, Session
from kowa.runtime.settings import VERSION, AgentSettings
from kowa.runtime.state import lock_state
from kowa.runtime.store import Holdings

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 15.0  # before connecting again
STEADY_SESSION_S = 10.0  # a session that lasted longer resets the back-off
LONGEST_RETRY_AFTER_S = 600.0  # Kahuna may ask for a longer pause; an agent never waits longer
RETRY_JITTER = 1.25  # up to so many times the pause that Kahuna asks for, so that many don't come back at once
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # One object may be as large as the largest request to Kahuna's API, plus what Kahuna adds to it.
    ("grpc.max_receive_message_length", 8 << 20),
    # gRPC uses this as the timeout of TCP, TLS and HTTP/2 together. Each session is one attempt: the pauses are ours.
    ("grpc.min_reconnect_backoff_ms", 10_000),
)
_FAREWELLS = frozenset(fleet_pb2.Farewell.values())


class Agent:
    """The Feed of a worker. Works from the stored state until Kahuna answers."""

    def __init__(
        self,
        worker: Worker,
        settings: AgentSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`clock` returns seconds, `uniform(low, high)` a random number."""
        self._clock, self._uniform = clock, uniform
        self._worker, self._settings = worker, settings
        self._holdings = Holdings(settings.state)
        self._journal = Journal(settings.state)
        self._commands = Commands(worker, self._journal)
        self._outbox = Outbox()
        self._addresses = Addresses(settings.servers, settings.state, clock)
        self._changed = asyncio.Event()
        self._changed.set()

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        """The desired state, by id."""
        return self._holdings.objects

    async def wait_for_change(self, timeout_s: float) -> None:
        """Returns when the desired state has changed since the last call, or after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()

    def report(self, report: fleet_pb2.Report) -> None:
        """Reports the observed state of one object."""
        self._outbox.put(report)

    async def run(self) -> None:
        """Works and stays connected, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._worker.run(self))
                tasks.create_task(self._stay_connected())
        finally:
            self._holdings.close()
            self._journal.close()

    def _holdings_changed(self) -> None:
        self._outbox.keep_only(self._holdings.objects)
        self._changed.set()

    async def _stay_connected(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, self._uniform)
        while True:
            started, goodbye = self._clock(), fleet_pb2.Goodbye()
            address = self._addresses.current
            try:
                async with self._channel() as channel:
                    parts = self._worker, self._holdings, self._outbox, self._commands, self._holdings_changed
                    await Session(channel, *parts, welcomed=self._addresses.is_good).run()
            except Goodbye as ended:
                goodbye = ended.message
                code = fleet_pb2.Farewell.Name(goodbye.farewell) if goodbye.farewell in _FAREWELLS else goodbye.farewell
                log.warning("session.ended", server=address, code=code, reason=goodbye.message)
            except grpc.aio.AioRpcError as error:
                log.warning("session.ended", server=address, code=error.code().name, reason=error.details())
            except (TimeoutError, OSError) as error:
                log.warning("session.ended", reason=str(error) or type(error).__name__)
            except Exception:
                # Error boundary: whatever goes wrong in a session, the worker goes on with the stored state.
                log.exception("session.failed")
            if self._clock() - started > STEADY_SESSION_S:
                backoff.reset()
            retry_after_s = min(goodbye.retry_after.ToMilliseconds() / 1000, LONGEST_RETRY_AFTER_S)
            asked_s = self._addresses.next(retry_after_s, goodbye.address) * self._uniform(1.0, RETRY_JITTER)
            await asyncio.sleep(max(asked_s, backoff.next_pause()))

    def _channel(self) -> grpc.aio.Channel:
        """Opens a channel for one session, so that the next session uses a new token or CA."""
        token = grpc.access_token_call_credentials(self._settings.token.read_text().strip())
        tls = grpc.ssl_channel_credentials(self._settings.ca.read_bytes())
        credentials = grpc.composite_channel_credentials(tls, token)
        return grpc.aio.secure_channel(self._addresses.current, credentials, options=KEEPALIVE)


def serve(worker: Worker, settings: AgentSettings) -> None:
    """Runs an agent until a signal stops it, as the only one with its state directory."""
    with lock_state(settings.state):
        configure_logs()
        log.info("agent.started", agent=settings.agent, version=VERSION, servers=settings.servers)
        uvloop.run(_serve(worker, settings))
        log.info("agent.stopped", agent=settings.agent)


async def _serve(worker: Worker, settings: AgentSettings) -> None:
    running = asyncio.create_task(Agent(worker, settings).run())
    on_stop_signal(running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
