"""FleetService: the agents' streams, from sign-in to their end."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote

import grpc
import prometheus_client
import structlog
from google.protobuf.message import DecodeError

from kahuna.access import CALLER, Context, Handler, stream_handler
from kahuna.domain.errors import Refusal
from kahuna.fleet.ending import ENDED, Ending, ending_of, protocol_error
from kahuna.fleet.fleet import STALE_AFTER_S, Fleet
from kahuna.fleet.pace import Pace
from kahuna.fleet.reports import Reports
from kahuna.fleet.session import (
    BYTES_PER_SECOND,
    ITEM_COST_BYTES,
    MAX_HOLDINGS,
    MAX_ID_CHARS,
    MAX_MESSAGE_BYTES,
    MAX_REPORTS,
    MAX_TEXT_CHARS,
    MESSAGE_COST_BYTES,
    Holder,
    Session,
    batches,
)
from kahuna.kinds import command
from kahuna.kinds.agent import nodes_of
from kahuna.kinds.console import MAX_CHUNK_BYTES, Consoles
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.tasks import until_first_done
from kowa.v2 import options_pb2

log = structlog.get_logger()

PROTOCOL = 1
SIGN_IN_TIMEOUT_S = 10  # for an agent to introduce itself
ACK_TIMEOUT_S = 60  # for it to store a batch
RETRY_INTERVAL_S = 60  # before a refused batch is sent again, if nothing has changed
GOODBYE_TIMEOUT_S = 1  # for an agent to read it
MAX_VERSION_CHARS = 64  # of an agent's version; the rest is cut off
MAX_CALLS = 256  # of one agent at once: its session, and a relay for each console
# Of agents whose token is no good, when they come back. However many others there are, who has a good one by then waits
# no longer than this.
REFUSALS_PER_SECOND, LEAST_REFUSAL_S, MOST_REFUSAL_S = 10, 15.0, 60.0
SESSION_ENDED = "its host's session has ended; open the console again when the host is back"
_SERVICE: Any = fleet_pb2.DESCRIPTOR.services_by_name["FleetService"]
ACCESS: dict[str, options_pb2.Access] = {
    f"/{_SERVICE.full_name}/{method.name}": method.GetOptions().Extensions[options_pb2.access]
    for method in _SERVICE.methods
}

CONNECT = f"/{_SERVICE.full_name}/Connect"

M = TypeVar("M", fleet_pb2.ConnectRequest, fleet_pb2.RelayRequest)
PAUSES = prometheus_client.Counter("kahuna_session_pauses", "Pauses in reading agents that send too much.")
Requests = AsyncIterator[fleet_pb2.ConnectRequest]


class FleetService:
    """Serves the streams of agents: sessions and relays of consoles."""

    def __init__(self, fleet: Fleet, reports: Reports, consoles: Consoles) -> None:
        self._fleet = fleet
        self._reports = reports
        self._consoles = consoles
        self._calls: Counter[str] = Counter()  # open ones, by agent
        consoles.ask = self._ask_for_console

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler to register."""
        # Messages are parsed by the calls: gRPC would end one with a traceback when it can't.
        handlers = {"Connect": stream_handler(self.connect), "Relay": stream_handler(self.relay)}
        return grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)

    def _ask_for_console(self, agent: str, ticket: str, instance: str) -> asyncio.Event | None:
        """Asks the agent for a console. Returns the event set at its session's end; None if it can't be asked."""
        session = self._fleet.sessions.get(agent)
        request = fleet_pb2.ConnectResponse(console=fleet_pb2.Console(ticket=ticket, instance=instance))
        return session.finished if session is not None and session.enqueue(request) else None

    async def connect(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Serves one session, until the agent goes, is superseded, or is revoked."""
        agent = Agent(context)
        try:
            with self._call(CALLER.get().identity.agent):
                await self._serve(_parsed(fleet_pb2.ConnectRequest, messages), agent)
        except grpc.aio.BaseError as error:
            log.info("session.broken", agent=CALLER.get().identity.agent, reason=str(error))
        except Exception as error:  # noqa: BLE001 - error boundary: the agent is told
            raise await agent.say_goodbye(ending_of(error)) from None

    async def relay(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Relays one console, until either side ends it."""
        identity = CALLER.get().identity
        with self._call(identity.agent):
            requests = _parsed(fleet_pb2.RelayRequest, messages)
            async with _timeout(SIGN_IN_TIMEOUT_S, "said which console it is"):
                first = await anext(requests, None) or fleet_pb2.RelayRequest()
            session = self._fleet.sessions.get(identity.agent)
            session_end = session.finished if session is not None and session.token == identity.token else None
            console = self._consoles.attach(first.ticket, session_end)

            async def pass_output() -> None:
                request: fleet_pb2.RelayRequest | None = first
                while request is not None and not request.refusal:
                    console.done(request.done)
                    console.print(request.data)
                    request = await anext(requests, None)
                console.end(request.refusal[:MAX_TEXT_CHARS] if request else SESSION_ENDED)

            async def pass_input() -> None:
                async for response in console.responses():
                    await context.write(response)

            try:
                for outcome in await until_first_done(pass_output(), pass_input(), console.host_gone.wait()):
                    if isinstance(outcome, Refusal):
                        raise outcome
            finally:
                # Also on undecodable input, so that the viewer always learns of the end.
                console.end(SESSION_ENDED)

    @contextlib.contextmanager
    def _call(self, agent: str) -> Iterator[None]:
        """Counts a call of an agent during the block. Raises Ending when it has too many."""
        if self._calls[agent] >= MAX_CALLS:
            problem = f"the agent has {self._calls[agent]} calls open, {MAX_CALLS} at most; end some of them"
            raise Ending(fleet_pb2.FAREWELL_OVERLOADED, problem)
        self._calls[agent] += 1
        try:
            yield
        finally:
            self._calls[agent] -= 1
            if not self._calls[agent]:
                del self._calls[agent]

    async def _serve(self, requests: Requests, agent: "Agent") -> None:
        """Serves a session. Raises Ending when it is not the agent that ends it."""
        identity = CALLER.get().identity
        hello = await _hello(requests)
        holder = Holder(hello.process[:MAX_ID_CHARS], agent.host, hello.version[:MAX_VERSION_CHARS])
        async with self._fleet.session(identity.agent, identity.token, holder) as session:
            try:
                await agent.write(fleet_pb2.ConnectResponse(welcome=self._welcome(session)))
                is_same_incarnation = hello.incarnation == self._fleet.store.view.incarnation
                reading, writing = self._read(session, requests, is_same_incarnation), self._write(session, agent)
                # What another task has ended it for comes first: then reading and writing may fail, too.
                for outcome in await until_first_done(asyncio.shield(session.ending), reading, writing):
                    if isinstance(outcome, Exception):
                        raise outcome
            except Refusal as refusal:
                # Said before the session's end is stored, for which the database may have to come back.
                raise await agent.say_goodbye(ending_of(refusal)) from None

    def _welcome(self, session: Session) -> fleet_pb2.Welcome:
        view = self._fleet.store.view
        kind, node = next(((kind, node.meta.id) for kind, node in nodes_of(view, session.agent)), ("", ""))
        welcome = fleet_pb2.Welcome(
            epoch=session.epoch,
            incarnation=view.incarnation,
            kind=kind,
            node=node,
            max_message=MAX_MESSAGE_BYTES,
            max_holdings=MAX_HOLDINGS,
            max_reports=MAX_REPORTS,
            max_relay_chunk=MAX_CHUNK_BYTES,
            max_rate=BYTES_PER_SECOND,
        )
        welcome.sign_in_timeout.FromMilliseconds(round(SIGN_IN_TIMEOUT_S * 1000))
        welcome.store_timeout.FromMilliseconds(round(ACK_TIMEOUT_S * 1000))
        welcome.heartbeat.FromMilliseconds(round(STALE_AFTER_S * 500))
        return welcome

    async def _read(self, session: Session, requests: Requests, is_same_incarnation: bool) -> None:
        """Handles the agent's messages. Its holdings count only if they are of the same incarnation."""
        async for request in requests:
            session.last_message_at = time.monotonic()
            signed_in, items = session.holdings_read.is_set(), 0
            match request.WhichOneof("message"):
                case "holdings" if not signed_in:
                    items = len(request.holdings.holdings)
                    if is_same_incarnation:
                        await session.add_holdings(request.holdings.holdings)
                    if request.holdings.last:
                        session.holdings_read.set()
                case "ack" if signed_in:
                    session.take_ack(request.ack)
                case "reports" if signed_in:
                    items = len(request.reports.reports)
                    if items > MAX_REPORTS:
                        raise protocol_error(f"there are {items} reports in one message; send {MAX_REPORTS} at most")
                    await self._reports.add(session, request.reports.reports)
                case "result" if signed_in:
                    await self._fleet.end_command(session, request.result)
                case other:
                    raise protocol_error(f"{other or 'an empty message'} is out of turn")
            # What has been read is paid for before more is: whoever floods waits, and nobody else does.
            if pause := session.reading.spend(request.ByteSize() + MESSAGE_COST_BYTES + items * ITEM_COST_BYTES):
                PAUSES.inc()
                await asyncio.sleep(pause)

    async def _write(self, session: Session, agent: "Agent") -> None:
        async with _timeout(SIGN_IN_TIMEOUT_S, "said what it holds"):
            await session.holdings_read.wait()
        store = self._fleet.store
        if session.has_commands:
            for recalled in await store.run(lambda tx: command.recall(tx, session.agent, session.epoch)):
                await self._send(session, agent, recalled)  # asks only for its result
        pause: float | None = None
        while True:
            await session.wait_for_change(pause)
            pause = await self._send_difference(session, agent)
            while session.outbound:
                await agent.write(session.outbound.popleft())
            if session.has_commands:
                session.has_commands = False
                for taken in await store.run(lambda tx: command.take(tx, session.agent, session.epoch)):
                    await self._send(session, agent, taken)

    async def _send(self, session: Session, agent: "Agent", command: fleet_pb2.Command) -> None:
        crash_point("kahuna.command.taken")
        command.epoch = session.epoch
        async with _timeout(ACK_TIMEOUT_S, "read a command"):
            await agent.write(fleet_pb2.ConnectResponse(command=command))
        crash_point("kahuna.command.sent")

    async def _send_difference(self, session: Session, agent: "Agent") -> float | None:
        """Sends what the agent lacks. Returns the seconds until a refused batch is to be tried again, or None."""
        revision = self._fleet.store.view.revision
        objects, removed = session.difference()
        if not objects and not removed:
            if session.held_revision == 0:
                session.held_revision = revision
                self._reports.put(session, fleet_pb2.Ack())
            return None
        acked: asyncio.Future[fleet_pb2.Ack] | None = None
        # One timeout for each part: a slow reader is timed on one part, not on the whole difference.
        for response in batches(objects, removed, revision):
            if response.batch.last:
                acked = session.expect_ack(response.batch.nonce)
            async with _timeout(ACK_TIMEOUT_S, "read a batch"):
                await agent.write(response)
            crash_point("kahuna.fleet.sent")
        assert acked is not None, "every batch has a last part"
        async with _timeout(ACK_TIMEOUT_S, "stored a batch"):
            ack = await acked
        if ack.refusal:
            log.warning("batch.refused", agent=session.agent, reason=ack.refusal[:MAX_TEXT_CHARS])
            session.batch_refused()
        else:
            session.batch_stored(objects, removed, revision)
        self._reports.put(session, ack)
        return RETRY_INTERVAL_S if ack.refusal else None


class Agent:
    """The agent's side of a session's call: what is written to it, and its goodbye."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._writes = self._told = False
        self.host = unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")

    async def write(self, response: fleet_pb2.ConnectResponse) -> None:
        """Returns when the message is on its way, so that an agent that does not read holds up its own session."""
        self._writes = True
        await self._context.write(response)
        self._writes = False

    async def say_goodbye(self, ending: Ending) -> Ending:
        """Tells the agent why its session ends, unless it does not read: the call's status says it, too."""
        if not self._told:
            self._told = True
            ENDED.labels(fleet_pb2.Farewell.Name(ending.farewell).removeprefix("FAREWELL_").lower()).inc()
            if not self._writes:
                with contextlib.suppress(TimeoutError, grpc.aio.BaseError):
                    async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                        await self.write(ending.goodbye())
        return ending


def refuser() -> "Callable[[str, Refusal], Handler]":
    """Returns what makes the handler of a refused call of the fleet's port: a session is said goodbye.

    Those who come with a token that is no good are spread over time, however many they are.
    """
    pace = Pace(REFUSALS_PER_SECOND, LEAST_REFUSAL_S, MOST_REFUSAL_S)

    def refuse(method: str, refusal: Refusal) -> Handler:
        async def end(_: object, context: Context) -> None:
            if method != CONNECT:
                raise refusal
            farewell, pause = fleet_pb2.FAREWELL_UNAUTHENTICATED, pace.next_pause()
            ending = Ending(farewell, refusal.message, retry_after_s=pause, reason=refusal.reason)
            raise await Agent(context).say_goodbye(ending)

        return stream_handler(end)

    return refuse


async def _parsed(kind: type[M], messages: AsyncIterator[bytes]) -> AsyncIterator[M]:
    """Yields the messages of a call. Raises Ending at the first one that can't be read."""
    async for data in messages:
        try:
            message = kind.FromString(data)
        except DecodeError:
            raise protocol_error(f"the agent sent {len(data)} bytes that are no {kind.DESCRIPTOR.name}") from None
        yield message


@contextlib.asynccontextmanager
async def _timeout(seconds: float, action: str) -> AsyncIterator[None]:
    """Raises Ending when the agent takes longer for an action (`read a batch`)."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        message = f"the agent has not {action} within {seconds:g} s"
        raise Ending(fleet_pb2.FAREWELL_TIMED_OUT, message) from None


async def _hello(requests: Requests) -> fleet_pb2.Hello:
    async with _timeout(SIGN_IN_TIMEOUT_S, "said hello"):
        request = await anext(aiter(requests), None)
    if request is None or request.WhichOneof("message") != "hello":
        raise protocol_error("the first message must be a hello")
    protocol = request.hello.protocol
    if protocol != PROTOCOL:
        remedy = "upgrade the agent" if protocol < PROTOCOL else "upgrade Kahuna first, then its agents"
        message = f"the agent speaks protocol {protocol}, this Kahuna speaks {PROTOCOL}; {remedy}"
        raise Ending(fleet_pb2.FAREWELL_UNSUPPORTED, message)
    return request.hello
