"""A console: what the worker shows, on a call of its own, so that it never holds up the session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused, Worker
from kowa.runtime.tasks import first_done

RELAY = "/kowa.fleet.v1.FleetService/Relay"
# How many messages of keys may wait for a machine, and for how many seconds; what comes then is lost.
DEPTH, PATIENCE = 16, 5.0


async def show(channel: grpc.aio.Channel, worker: Worker, console: fleet_pb2.Console) -> None:
    """Answers for a console until either side ends it. Raises grpc.aio.AioRpcError when Kahuna goes."""
    relay: Any = channel.stream_stream(
        RELAY, fleet_pb2.RelayRequest.SerializeToString, fleet_pb2.RelayResponse.FromString
    )
    call = relay()

    async def listen() -> None:
        """Reads on whatever becomes of the keys, since only a reader hears that the viewer has left."""
        patience = PATIENCE
        while isinstance(response := await call.read(), fleet_pb2.RelayResponse):
            try:
                async with asyncio.timeout(patience):
                    await typed.put(response.data)
                patience = PATIENCE
            except TimeoutError:
                patience = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await typed.join()

    async def keys() -> AsyncIterator[bytes]:
        while True:
            yield await typed.get()
            typed.task_done()

    async def print_all() -> None:
        try:
            async for data in worker.console(console.instance, keys()):
                await call.write(fleet_pb2.RelayRequest(data=data))
        except Refused as refused:
            await call.write(fleet_pb2.RelayRequest(refusal=str(refused)))
        await call.done_writing()
        # Kahuna ends the call when it has read all of that, and the listener hears it. To end here would cut it short.
        await asyncio.sleep(PATIENCE)

    typed: asyncio.Queue[bytes] = asyncio.Queue(DEPTH)
    try:
        await call.write(fleet_pb2.RelayRequest(ticket=console.ticket))
        await first_done(print_all(), listen())
    finally:
        call.cancel()
