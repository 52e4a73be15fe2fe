"""FleetService: the agents' streams, from sign-in to their end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from kahuna.access import CALLER, Context, stream_handler
from kahuna.domain.errors import Refusal
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.reports import Reports
from kahuna.fleet.session import MAX_MESSAGE_BYTES, MAX_TEXT_CHARS, Session, batches
from kahuna.kinds import command
from kahuna.kinds.agent import nodes_of
from kahuna.kinds.console import Consoles
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.tasks import until_first_done
from kowa.v2 import options_pb2

log = structlog.get_logger()

PROTOCOL = 1
SIGN_IN_TIMEOUT_S = 10  # for an agent to introduce itself
ACK_TIMEOUT_S = 60  # for it to store a batch
RETRY_INTERVAL_S = 60  # before a refused batch is sent again, if nothing has changed
SESSION_ENDED = "its host's session has ended; open the console again when the host is back"
_SERVICE: Any = fleet_pb2.DESCRIPTOR.services_by_name["FleetService"]
ACCESS: dict[str, options_pb2.Access] = {
    f"/{_SERVICE.full_name}/{method.name}": method.GetOptions().Extensions[options_pb2.access]
    for method in _SERVICE.methods
}

Requests = AsyncIterator[fleet_pb2.ConnectRequest]


class FleetService:
    """Serves the streams of agents: sessions and relays of consoles."""

    def __init__(self, fleet: Fleet, reports: Reports, consoles: Consoles) -> None:
        self._fleet = fleet
        self._reports = reports
        self._consoles = consoles
        consoles.ask = self._ask_for_console

    def handler(self) -> grpc.GenericRpcHandler:
        """The gRPC handler to register."""
        handlers = {
            "Connect": stream_handler(self.connect, fleet_pb2.ConnectRequest.FromString),
            "Relay": stream_handler(self.relay, fleet_pb2.RelayRequest.FromString),
        }
        return grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)

    def _ask_for_console(self, agent: str, ticket: str, instance: str) -> asyncio.Event | None:
        """Asks the agent for a console. Returns the event set at its session's end; None if it can't be asked."""
        session = self._fleet.sessions.get(agent)
        request = fleet_pb2.ConnectResponse(console=fleet_pb2.Console(ticket=ticket, instance=instance))
        return session.finished if session is not None and session.enqueue(request) else None

    async def connect(self, requests: Requests, context: Context) -> None:
        """Serves one session, until the agent goes, is superseded, or is revoked."""
        identity = CALLER.get().identity
        hello = await _hello(requests)
        async with self._fleet.session(identity.agent, identity.token, hello.version) as session:
            await self._serve(session, hello, requests, context)
        if session.end_reason.done():
            raise Refusal("CONFLICT", f"the session has ended: {session.end_reason.result()}")

    async def relay(self, requests: AsyncIterator[fleet_pb2.RelayRequest], context: Context) -> None:
        """Relays one console, until either side ends it."""
        async with _timeout(SIGN_IN_TIMEOUT_S, "said which console it is"):
            first = await anext(aiter(requests), None) or fleet_pb2.RelayRequest()
        identity = CALLER.get().identity
        session = self._fleet.sessions.get(identity.agent)
        session_end = session.finished if session is not None and session.token == identity.token else None
        console = self._consoles.attach(first.ticket, session_end)

        async def pass_output() -> None:
            request: fleet_pb2.RelayRequest | None = first
            while request is not None and not request.refusal:
                console.done(request.done)
                console.print(request.data)
                request = await anext(aiter(requests), None)
            console.end(request.refusal[:MAX_TEXT_CHARS] if request else SESSION_ENDED)

        async def pass_input() -> None:
            async for response in console.responses():
                await context.write(response)

        try:
            await until_first_done(pass_output(), pass_input(), console.host_gone.wait())
        finally:
            # Also on undecodable input, so that the viewer always learns of the end.
            console.end(SESSION_ENDED)

    async def _serve(self, session: Session, hello: fleet_pb2.Hello, requests: Requests, context: Context) -> None:
        view = self._fleet.store.view
        kind, node = next(((kind, node.meta.id) for kind, node in nodes_of(view, session.agent)), ("", ""))
        welcome = fleet_pb2.Welcome(
            epoch=session.epoch, incarnation=view.incarnation, kind=kind, node=node, max_message=MAX_MESSAGE_BYTES
        )
        await context.write(fleet_pb2.ConnectResponse(welcome=welcome))
        is_same_incarnation = hello.incarnation == view.incarnation
        reading, writing = self._read(session, requests, is_same_incarnation), self._write(session, context)
        for outcome in await until_first_done(reading, writing, asyncio.shield(session.end_reason)):
            if isinstance(outcome, Refusal):
                session.end(outcome.message)
            elif isinstance(outcome, Exception):
                log.warning("session.broken", agent=session.agent, exc_info=outcome)

    async def _read(self, session: Session, requests: Requests, is_same_incarnation: bool) -> None:
        """Handles the agent's messages. Its holdings count only if they are of the same incarnation."""
        async for request in requests:
            session.last_message_at = time.monotonic()
            signed_in = session.holdings_read.is_set()
            match request.WhichOneof("message"):
                case "holdings" if not signed_in:
                    if is_same_incarnation:
                        session.add_holdings(request.holdings.holdings)
                    if request.holdings.last:
                        session.holdings_read.set()
                case "ack" if not session.acks.full():
                    session.ack_stored.clear()
                    session.acks.put_nowait(request.ack)
                case "reports" if signed_in:
                    await self._reports.add(session, request.reports.reports)
                case "result" if signed_in:
                    await self._fleet.end_command(session, request.result)
                case other:
                    raise Refusal("INVALID_ARGUMENT", f"{other or 'an empty message'} is out of turn")

    async def _write(self, session: Session, context: Context) -> None:
        async with _timeout(SIGN_IN_TIMEOUT_S, "said what it holds"):
            await session.holdings_read.wait()
        store = self._fleet.store
        for recalled in await store.run(lambda tx: command.recall(tx, session.agent, session.epoch)):
            await self._send(session, context, recalled)  # asks only for its result
        pause: float | None = None
        while True:
            await session.wait_for_change(pause)
            pause = await self._send_difference(session, context)
            while session.outbound:
                await context.write(session.outbound.popleft())
            if session.has_commands:
                session.has_commands = False
                for taken in await store.run(lambda tx: command.take(tx, session.agent, session.epoch)):
                    await self._send(session, context, taken)

    async def _send(self, session: Session, context: Context, command: fleet_pb2.Command) -> None:
        crash_point("kahuna.command.taken")
        command.epoch = session.epoch
        async with _timeout(ACK_TIMEOUT_S, "read a command"):
            await context.write(fleet_pb2.ConnectResponse(command=command))
        crash_point("kahuna.command.sent")

    async def _send_difference(self, session: Session, context: Context) -> float | None:
        """Sends what the agent lacks. Returns the seconds until a refused batch is to be tried again, or None."""
        revision = self._fleet.store.view.revision
        objects, removed = session.difference()
        if not objects and not removed:
            if session.held_revision == 0:
                session.held_revision = revision
                self._reports.put(session, fleet_pb2.Ack())
            return None
        nonce = ""
        # One timeout for each part: a slow reader is timed on one part, not on the whole difference.
        for response in batches(objects, removed, revision):
            nonce = response.batch.nonce
            async with _timeout(ACK_TIMEOUT_S, "read a batch"):
                await context.write(response)
            crash_point("kahuna.fleet.sent")
        async with _timeout(ACK_TIMEOUT_S, "stored a batch"):
            ack = await session.acks.get()
        if ack.nonce != nonce:
            raise Refusal("INVALID_ARGUMENT", "the ack names another batch than the one under way")
        if ack.refusal:
            log.warning("batch.refused", agent=session.agent, reason=ack.refusal[:MAX_TEXT_CHARS])
            session.batch_refused()
        else:
            session.batch_stored(objects, removed, revision)
        self._reports.put(session, ack)
        return RETRY_INTERVAL_S if ack.refusal else None


@contextlib.asynccontextmanager
async def _timeout(seconds: float, action: str) -> AsyncIterator[None]:
    """Raises Refusal when the agent takes longer for an action (`read a batch`)."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Refusal("CONFLICT", f"the agent has not {action} within {seconds:g} s") from None


async def _hello(requests: Requests) -> fleet_pb2.Hello:
    async with _timeout(SIGN_IN_TIMEOUT_S, "said hello"):
        request = await anext(aiter(requests), None)
    if request is None or request.WhichOneof("message") != "hello":
        raise Refusal("INVALID_ARGUMENT", "the first message must be a hello")
    protocol = request.hello.protocol
    if protocol != PROTOCOL:
        remedy = "upgrade the agent" if protocol < PROTOCOL else "upgrade Kahuna first, then its agents"
        message = f"the agent speaks protocol {protocol}, this Kahuna speaks {PROTOCOL}; {remedy}"
        raise Refusal("INVALID_ARGUMENT", message)
    return request.hello
