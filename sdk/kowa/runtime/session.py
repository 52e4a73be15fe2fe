"""One session with Kahuna: sign in, list what is held, take batches, send reports."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc
import structlog

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.commands import Commands
from kowa.runtime.console import serve_console
from kowa.runtime.crashpoint import reach
from kowa.runtime.feed import Refused, Worker
from kowa.runtime.outbox import Outbox
from kowa.runtime.store import Holdings
from kowa.runtime.tasks import Tasks, first_done

log = structlog.get_logger()

PROTOCOL = 1
CONNECT = "/kowa.fleet.v1.FleetService/Connect"
HOLDINGS_PER_MESSAGE = 1000  # below the least that Kahuna takes in one
WELCOME_TIMEOUT_S = 10
HEARTBEAT_INTERVAL_S = 10.0  # without a report; Kahuna calls an agent STALE after 20 s of silence
Call: TypeAlias = "grpc.aio.StreamStreamCall[fleet_pb2.ConnectRequest, fleet_pb2.ConnectResponse]"


class Session:
    """One call of Connect. Writes are one at a time, as the wire wants them."""

    def __init__(self, call: Call, channel: grpc.aio.Channel, commands: Commands) -> None:
        self._call, self._channel, self._commands = call, channel, commands
        self._epoch = 0
        self._background = Tasks()
        self._writing = asyncio.Lock()

    async def run(
        self, version: str, holdings: Holdings, worker: Worker, outbox: Outbox, changed: Callable[[], None]
    ) -> None:
        """Holds the session until it ends. Raises grpc.aio.AioRpcError with why."""
        hello = fleet_pb2.Hello(protocol=PROTOCOL, version=version, incarnation=holdings.incarnation)
        await self._write(fleet_pb2.ConnectRequest(hello=hello))
        async with asyncio.timeout(WELCOME_TIMEOUT_S):
            first = await self._call.read()
        if not isinstance(first, fleet_pb2.ConnectResponse) or first.WhichOneof("message") != "welcome":
            # An answer without a message: the call has ended, and its status says why.
            raise await self._ended()
        if first.welcome.incarnation != holdings.incarnation:
            holdings.begin(first.welcome.incarnation)
            changed()
        for request in _holdings(holdings, worker):
            await self._write(request)
        self._epoch = first.welcome.epoch
        log.info("session.opened", epoch=first.welcome.epoch, kind=first.welcome.kind or "unbound")
        outbox.restart()
        try:
            await first_done(self._receive(holdings, worker, changed), self._send(outbox))
        finally:
            await self._background.close()

    async def _receive(self, holdings: Holdings, worker: Worker, changed: Callable[[], None]) -> None:
        parts: list[fleet_pb2.Batch] = []
        while isinstance(response := await self._call.read(), fleet_pb2.ConnectResponse):
            match response.WhichOneof("message"):
                case "command":
                    self._background.spawn(self._answer(response.command, holdings), "command")
                case "console":
                    self._background.spawn(serve_console(self._channel, worker, response.console), "console")
            if response.WhichOneof("message") != "batch":
                continue
            if parts and parts[0].nonce != response.batch.nonce:
                parts.clear()
            parts.append(response.batch)
            if not response.batch.last:
                continue
            refusal = _take(parts, holdings, worker)
            if not refusal:
                # Before the ack, which may be the end of the session: it is stored all the same.
                changed()
            reach("agent.batch.stored")
            await self._write(fleet_pb2.ConnectRequest(ack=fleet_pb2.Ack(nonce=response.batch.nonce, refusal=refusal)))
            reach("agent.batch.acked")
            parts.clear()
        raise await self._ended()

    async def _send(self, outbox: Outbox) -> None:
        while True:
            reports: list[fleet_pb2.Report] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                    reports = await outbox.take()
            await self._write(fleet_pb2.ConnectRequest(reports=fleet_pb2.Reports(reports=reports)))

    async def _answer(self, command: fleet_pb2.Command, holdings: Holdings) -> None:
        result = await self._commands.answer(command, self._epoch, holdings.objects)
        await self._write(fleet_pb2.ConnectRequest(result=result))

    async def _write(self, request: fleet_pb2.ConnectRequest) -> None:
        async with self._writing:
            try:
                await self._call.write(request)
            except asyncio.InvalidStateError:
                # The call has ended, and its status says why.
                raise await self._ended() from None

    async def _ended(self) -> grpc.aio.AioRpcError:
        call = self._call
        return grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            details=await call.details(),
        )


async def run_session(
    channel: grpc.aio.Channel,
    version: str,
    holdings: Holdings,
    worker: Worker,
    outbox: Outbox,
    commands: Commands,
    changed: Callable[[], None],
) -> None:
    """Holds one session on a channel until it ends. Raises grpc.aio.AioRpcError with why."""
    connect: Any = channel.stream_stream(
        CONNECT, fleet_pb2.ConnectRequest.SerializeToString, fleet_pb2.ConnectResponse.FromString
    )
    call: Call = connect()
    try:
        await Session(call, channel, commands).run(version, holdings, worker, outbox, changed)
    finally:
        call.cancel()


def _take(parts: list[fleet_pb2.Batch], holdings: Holdings, worker: Worker) -> str:
    """Stores a whole batch, or says why not."""
    put = [object_ for part in parts for object_ in part.objects]
    removed = [id_ for part in parts for id_ in part.removed]
    refusal = _why_not(worker, holdings.merged(put, removed))
    if not refusal:
        try:
            holdings.store(put, removed)
        except OSError as error:
            refusal = str(error)
    if refusal:
        log.warning("batch.refused", reason=refusal)
    else:
        log.info("batch.stored", objects=len(put), removed=len(removed), revision=parts[-1].revision)
    return refusal


def _why_not(worker: Worker, objects: Mapping[str, fleet_pb2.Object]) -> str:
    """Why the worker does not take a slice; empty if it does."""
    try:
        worker.accept(objects)
    except Refused as refused:
        return str(refused) or "refused"
    except Exception as error:
        # The edge: whatever goes wrong in the worker must not stop what it does already.
        log.error("worker.failed", exc_info=error)
        return f"the agent failed on it, its log says where: {type(error).__name__}: {error}"
    return ""


def _holdings(holdings: Holdings, worker: Worker) -> list[fleet_pb2.ConnectRequest]:
    """What is held. Of a slice that the worker does not take, no generation is held: Kahuna sends all of it anew."""
    stored = holdings.objects.values()
    held = [fleet_pb2.Holding(id=one.id, generation=one.generation, gone=one.gone) for one in stored]
    if refusal := _why_not(worker, holdings.objects):
        # Another version has stored it. The batch that answers this replaces it as a whole, or is refused and shown.
        log.warning("slice.refused", reason=refusal)
        held = [fleet_pb2.Holding(id=one.id, gone=one.gone) for one in stored]
    chunks = [held[start : start + HOLDINGS_PER_MESSAGE] for start in range(0, len(held), HOLDINGS_PER_MESSAGE)] or [[]]
    return [
        fleet_pb2.ConnectRequest(holdings=fleet_pb2.Holdings(holdings=chunk, last=index == len(chunks) - 1))
        for index, chunk in enumerate(chunks)
    ]
