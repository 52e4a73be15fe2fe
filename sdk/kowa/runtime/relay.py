"""A console: what the worker shows, on a call of its own, so that it never holds up the session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused, Worker

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
        async for data in worker.console(console.instance, keys()):
            await call.write(fleet_pb2.RelayRequest(data=data))

    typed: asyncio.Queue[bytes] = asyncio.Queue(DEPTH)
    try:
        await call.write(fleet_pb2.RelayRequest(ticket=console.ticket))
        printing = asyncio.create_task(print_all())
        leaving = asyncio.create_task(listen())
        await asyncio.wait({printing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (printing, leaving):
            task.cancel()
        outcomes = await asyncio.gather(printing, leaving, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                await call.write(fleet_pb2.RelayRequest(refusal=str(outcome)))
        await call.done_writing()
    finally:
        call.cancel()
