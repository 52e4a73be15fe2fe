"""A console: what the worker shows, on a call of its own, so that it never holds up the session."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused, Worker

RELAY = "/kowa.fleet.v1.FleetService/Relay"


async def show(channel: grpc.aio.Channel, worker: Worker, console: fleet_pb2.Console) -> None:
    """Answers for a console until either side ends it. Raises grpc.aio.AioRpcError when Kahuna goes."""
    relay: Any = channel.stream_stream(
        RELAY, fleet_pb2.RelayRequest.SerializeToString, fleet_pb2.RelayResponse.FromString
    )
    call = relay()

    async def keys() -> AsyncIterator[bytes]:
        while isinstance(response := await call.read(), fleet_pb2.RelayResponse):
            yield response.data
        ended.set()

    async def print_all() -> None:
        async for data in worker.console(console.instance, keys()):
            await call.write(fleet_pb2.RelayRequest(data=data))

    ended = asyncio.Event()
    try:
        await call.write(fleet_pb2.RelayRequest(ticket=console.ticket))
        printing = asyncio.create_task(print_all())
        leaving = asyncio.create_task(ended.wait())
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
