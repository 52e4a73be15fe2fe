"""One session with Kahuna: sign in, say what is held, take batches, send reports."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
import structlog

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import reach
from kowa.runtime.feed import Refused, Worker
from kowa.runtime.outbox import Outbox
from kowa.runtime.store import Holdings

log = structlog.get_logger()

PROTOCOL = 1
CONNECT = "/kowa.fleet.v1.FleetService/Connect"
# Below the least that Kahuna takes in one message.
CHUNK = 1000
WELCOME = 10
Call: TypeAlias = "grpc.aio.StreamStreamCall[fleet_pb2.ConnectRequest, fleet_pb2.ConnectResponse]"


class Session:
    """One call of Connect. Writes are one at a time, as the wire wants them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._writing = asyncio.Lock()

    async def run(
        self, version: str, holdings: Holdings, worker: Worker, outbox: Outbox, moved: Callable[[], None]
    ) -> None:
        """Holds the session until it ends. Raises grpc.aio.AioRpcError with why."""
        hello = fleet_pb2.Hello(protocol=PROTOCOL, version=version, incarnation=holdings.incarnation)
        await self._write(fleet_pb2.ConnectRequest(hello=hello))
        async with asyncio.timeout(WELCOME):
            first = await self._call.read()
        if not isinstance(first, fleet_pb2.ConnectResponse) or first.WhichOneof("message") != "welcome":
            # An answer without a message: the call has ended, and its status says why.
            raise await self._ended()
        if first.welcome.incarnation != holdings.incarnation:
            holdings.begin(first.welcome.incarnation)
        for request in _holdings(holdings):
            await self._write(request)
        log.info("session.opened", epoch=first.welcome.epoch, kind=first.welcome.kind or "unbound")
        outbox.restart()
        tasks = [
            asyncio.create_task(self._receive(holdings, worker, moved)),
            asyncio.create_task(self._send(outbox)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, holdings: Holdings, worker: Worker, moved: Callable[[], None]) -> None:
        parts: list[fleet_pb2.Batch] = []
        while isinstance(response := await self._call.read(), fleet_pb2.ConnectResponse):
            if response.WhichOneof("message") != "batch":
                continue
            if parts and parts[0].nonce != response.batch.nonce:
                parts.clear()
            parts.append(response.batch)
            if not response.batch.last:
                continue
            refusal = _take(parts, holdings, worker)
            reach("agent.batch.stored")
            await self._write(fleet_pb2.ConnectRequest(ack=fleet_pb2.Ack(nonce=response.batch.nonce, refusal=refusal)))
            reach("agent.batch.acked")
            parts.clear()
            if not refusal:
                moved()
        raise await self._ended()

    async def _send(self, outbox: Outbox) -> None:
        while True:
            reports = await outbox.take()
            await self._write(fleet_pb2.ConnectRequest(reports=fleet_pb2.Reports(reports=reports)))

    async def _write(self, request: fleet_pb2.ConnectRequest) -> None:
        async with self._writing:
            await self._call.write(request)

    async def _ended(self) -> grpc.aio.AioRpcError:
        call = self._call
        return grpc.aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            details=await call.details(),
        )


async def hold(
    channel: grpc.aio.Channel,
    version: str,
    holdings: Holdings,
    worker: Worker,
    outbox: Outbox,
    moved: Callable[[], None],
) -> None:
    """Holds one session on a channel until it ends. Raises grpc.aio.AioRpcError with why."""
    connect: Any = channel.stream_stream(
        CONNECT, fleet_pb2.ConnectRequest.SerializeToString, fleet_pb2.ConnectResponse.FromString
    )
    call: Call = connect()
    try:
        await Session(call).run(version, holdings, worker, outbox, moved)
    finally:
        call.cancel()


def _take(parts: list[fleet_pb2.Batch], holdings: Holdings, worker: Worker) -> str:
    """Stores a whole batch, or says why not."""
    put = [described for part in parts for described in part.objects]
    removed = [id_ for part in parts for id_ in part.removed]
    try:
        worker.accept(holdings.merged(put, removed))
    except Refused as refused:
        log.warning("batch.refused", reason=str(refused))
        return str(refused) or "refused"
    holdings.store(put, removed)
    log.info("batch.stored", objects=len(put), removed=len(removed), revision=parts[-1].revision)
    return ""


def _holdings(holdings: Holdings) -> list[fleet_pb2.ConnectRequest]:
    held = [
        fleet_pb2.Holding(id=described.id, generation=described.generation, gone=described.gone)
        for described in holdings.objects.values()
    ]
    chunks = [held[start : start + CHUNK] for start in range(0, len(held), CHUNK)] or [[]]
    return [
        fleet_pb2.ConnectRequest(holdings=fleet_pb2.Holdings(holdings=chunk, last=index == len(chunks) - 1))
        for index, chunk in enumerate(chunks)
    ]
