"""Consoles: each is relayed on its own call, so that it never blocks the session."""

import asyncio
import contextlib
from typing import Any

import grpc

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Keys, Refused, Worker
from kowa.runtime.tasks import first_done

RELAY = "/kowa.fleet.v1.FleetService/Relay"
# Messages of keys and sizes that may wait for an instance: as many as Kahuna sends ahead.
MAX_PENDING_KEYS = 16
MAX_UNSHOWN_BYTES = 256 << 10  # of an instance's output on the way to its viewer
# Time for an instance to read the last keys after its viewer has left, and for Kahuna to read the last output.
LAST_KEYS_TIMEOUT_S = 5.0


async def serve_console(channel: grpc.aio.Channel, worker: Worker, console: fleet_pb2.Console) -> None:
    """Relays a console until either side ends it. Raises grpc.aio.AioRpcError when Kahuna disconnects."""
    relay: Any = channel.stream_stream(
        RELAY, fleet_pb2.RelayRequest.SerializeToString, fleet_pb2.RelayResponse.FromString
    )
    call = relay()
    typed: asyncio.Queue[fleet_pb2.RelayResponse] = asyncio.Queue(MAX_PENDING_KEYS)
    write_lock, shown = asyncio.Lock(), asyncio.Event()
    under_way = 0  # bytes of output

    async def send(request: fleet_pb2.RelayRequest) -> None:
        async with write_lock:
            await call.write(request)

    async def listen() -> None:
        """Reads on while keys wait, since only a reader notices that the viewer has left."""
        nonlocal under_way
        while isinstance(response := await call.read(), fleet_pb2.RelayResponse):
            if response.shown:
                under_way -= response.shown
                shown.set()
            else:
                typed.put_nowait(response)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_KEYS_TIMEOUT_S):
                await typed.join()

    async def keys() -> Keys:
        while True:
            response = await typed.get()
            yield response.size if response.HasField("size") else response.data
            typed.task_done()
            await send(fleet_pb2.RelayRequest(done=1))

    async def send_output() -> None:
        nonlocal under_way
        try:
            async for data in worker.console(console.instance, keys()):
                while under_way + len(data) > MAX_UNSHOWN_BYTES:
                    shown.clear()
                    await shown.wait()
                under_way += len(data)
                await send(fleet_pb2.RelayRequest(data=data))
        except Refused as refused:
            await send(fleet_pb2.RelayRequest(refusal=str(refused)))
        await call.done_writing()
        # Kahuna ends the call once it has read everything, and listen() returns. Returning earlier would lose output.
        await asyncio.sleep(LAST_KEYS_TIMEOUT_S)

    try:
        await send(fleet_pb2.RelayRequest(ticket=console.ticket))
        await first_done(send_output(), listen())
    finally:
        call.cancel()
