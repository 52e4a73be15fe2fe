"""Consoles: each is relayed on a call of its own, so that it never holds up the session."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused, Worker
from kowa.runtime.tasks import first_done

RELAY = "/kowa.fleet.v1.FleetService/Relay"
# How many messages of keys may wait for an instance, and how long; what comes then is lost.
MAX_PENDING_KEYS, KEYS_TIMEOUT_S = 16, 5.0


async def serve_console(channel: grpc.aio.Channel, worker: Worker, console: fleet_pb2.Console) -> None:
    """Answers for a console until either side ends it. Raises grpc.aio.AioRpcError when Kahuna goes."""
    relay: Any = channel.stream_stream(
        RELAY, fleet_pb2.RelayRequest.SerializeToString, fleet_pb2.RelayResponse.FromString
    )
    call = relay()

    async def listen() -> None:
        """Reads on whatever becomes of the keys, since only a reader hears that the viewer has left."""
        limit = KEYS_TIMEOUT_S
        while isinstance(response := await call.read(), fleet_pb2.RelayResponse):
            try:
                async with asyncio.timeout(limit):
                    await typed.put(response.data)
                limit = KEYS_TIMEOUT_S
            except TimeoutError:
                limit = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEYS_TIMEOUT_S):
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
        await asyncio.sleep(KEYS_TIMEOUT_S)

    typed: asyncio.Queue[bytes] = asyncio.Queue(MAX_PENDING_KEYS)
    try:
        await call.write(fleet_pb2.RelayRequest(ticket=console.ticket))
        await first_done(print_all(), listen())
    finally:
        call.cancel()
