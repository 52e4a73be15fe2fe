"""FleetService.Connect: the agent's stream, from sign-in to the last word."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import structlog

from kahuna.api.access import CALLER, abort
from kahuna.domain.errors import Refusal
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.reports import Reports
from kahuna.fleet.session import MAX_MESSAGE, Session, batches
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import reach
from kowa.v2 import kaktus_pb2, kiwi_pb2, options_pb2

log = structlog.get_logger()

PROTOCOL = 1
# How long an agent may take to introduce itself, and to store a batch, in seconds.
SIGN_IN = 10
STORE = 60
CONNECT = "/kowa.fleet.v1.FleetService/Connect"
ACCESS = {CONNECT: options_pb2.Access(role=options_pb2.ROLE_AGENT, scope=options_pb2.SCOPE_SELF)}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Requests = AsyncIterator[fleet_pb2.ConnectRequest]


class FleetService:
    """Where agents sign in."""

    def __init__(self, fleet: Fleet, reports: Reports) -> None:
        self._fleet = fleet
        self._reports = reports

    def handler(self) -> grpc.GenericRpcHandler:
        """What the server is given."""
        method = grpc.stream_stream_rpc_method_handler(
            self.connect, fleet_pb2.ConnectRequest.FromString, fleet_pb2.ConnectResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler("kowa.fleet.v1.FleetService", {"Connect": method})

    async def connect(self, requests: Requests, context: Context) -> None:
        """One session, until the agent goes, is superseded, or is revoked."""
        identity = CALLER.get().identity
        try:
            async with asyncio.timeout(SIGN_IN):
                hello = await _hello(requests)
                session = await self._fleet.open(identity.agent, identity.token, hello.version)
        except TimeoutError:
            await abort(context, Refusal("INVALID_ARGUMENT", f"no hello came within {SIGN_IN} s"))
            return
        except Refusal as refusal:
            await abort(context, refusal)
            return
        log.info("session.opened", agent=session.agent, epoch=session.epoch, version=hello.version)
        try:
            await self._serve(session, hello, requests, context)
        finally:
            await asyncio.shield(self._fleet.close(session))
            log.info("session.closed", agent=session.agent, epoch=session.epoch)
        if session.ended.done():
            await abort(context, Refusal("CONFLICT", f"the session has ended: {session.ended.result()}"))

    async def _serve(self, session: Session, hello: fleet_pb2.Hello, requests: Requests, context: Context) -> None:
        await context.write(fleet_pb2.ConnectResponse(welcome=self._welcome(session)))
        acks: asyncio.Queue[fleet_pb2.Ack] = asyncio.Queue(1)
        ready = asyncio.Event()
        known = hello.incarnation == self._fleet.store.view.incarnation
        reader = asyncio.create_task(self._read(session, requests, acks, ready, known))
        writer = asyncio.create_task(self._write(session, context, acks, ready))
        try:
            endings: list[asyncio.Future[Any]] = [reader, writer, session.ended]
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer):
                task.cancel()
            outcomes = await asyncio.gather(reader, writer, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                session.end(outcome.message)
            elif isinstance(outcome, Exception):
                log.warning("session.broken", agent=session.agent, exc_info=outcome)

    def _welcome(self, session: Session) -> fleet_pb2.Welcome:
        view = self._fleet.store.view
        kind, node = "", ""
        for name in ("Kaktus", "Kiwi"):
            for record in view.referring(name, "agent", session.agent):
                assert isinstance(record, kaktus_pb2.Kaktus | kiwi_pb2.Kiwi)
                kind, node = name, record.meta.id
        return fleet_pb2.Welcome(
            epoch=session.epoch, incarnation=view.incarnation, kind=kind, node=node, max_message=MAX_MESSAGE
        )

    async def _read(
        self,
        session: Session,
        requests: Requests,
        acks: asyncio.Queue[fleet_pb2.Ack],
        ready: asyncio.Event,
        known: bool,
    ) -> None:
        async for request in requests:
            match request.WhichOneof("message"):
                case "holdings" if not ready.is_set():
                    if known:
                        held = {item.id: (item.generation, item.gone) for item in request.holdings.holdings}
                        session.held.update(held)
                    if request.holdings.last:
                        ready.set()
                case "ack" if not acks.full():
                    acks.put_nowait(request.ack)
                case "reports" if ready.is_set():
                    self._reports.add(session, request.reports.reports)
                case other:
                    raise Refusal("INVALID_ARGUMENT", f"{other or 'an empty message'} is out of turn")

    async def _write(
        self, session: Session, context: Context, acks: asyncio.Queue[fleet_pb2.Ack], ready: asyncio.Event
    ) -> None:
        async with asyncio.timeout(SIGN_IN):
            await ready.wait()
        while True:
            await session.moved()
            revision = self._fleet.store.view.revision
            objects, removed = session.difference()
            if not objects and not removed:
                if session.held_revision == 0:
                    session.held_revision = revision
                    self._reports.hold(session, "")
                continue
            nonce = ""
            for response in batches(objects, removed, revision):
                nonce = response.batch.nonce
                await context.write(response)
                reach("kahuna.fleet.sent")
            async with asyncio.timeout(STORE):
                ack = await acks.get()
            if ack.nonce != nonce:
                raise Refusal("INVALID_ARGUMENT", "the ack names another batch than the one under way")
            if ack.refusal:
                log.warning("batch.refused", agent=session.agent, reason=ack.refusal)
            else:
                session.stored(objects, removed, revision)
            self._reports.hold(session, ack.refusal)


async def _hello(requests: Requests) -> fleet_pb2.Hello:
    async for request in requests:
        if request.WhichOneof("message") != "hello":
            break
        if request.hello.protocol != PROTOCOL:
            said = (
                f"the agent speaks protocol {request.hello.protocol}, this Kahuna speaks {PROTOCOL}; upgrade the agent"
            )
            raise Refusal("INVALID_ARGUMENT", said)
        return request.hello
    raise Refusal("INVALID_ARGUMENT", "the first message must be a hello")
