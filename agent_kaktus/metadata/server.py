"""The service to machines: who asks is known by where a connection comes from, and nobody else is answered."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

from agent_kaktus.desired import Desired, Machine
from agent_kaktus.metadata import document
from agent_kaktus.metadata.answer import answer
from agent_kaktus.metadata.tokens import Tokens
from agent_kaktus.metadata.wire import Malformed, Wire

REQUEST_LIMIT = 5.0  # seconds from the end of one answer to the end of the next
MOST_CONNECTIONS = 512
MOST_OF_A_MACHINE = 8

log = structlog.get_logger()

Neighbours = Callable[[str], str]
"""The hardware address behind a network address on one vnet, as the kernel sees it; empty if it sees none."""


class Server:
    """Answers machines of this host on any number of vnets."""

    def __init__(self, desired: Callable[[], Desired], tokens: Tokens) -> None:
        self._desired, self._tokens = desired, tokens
        self._connections: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, listener: socket.socket, segment: str, neighbours: Neighbours) -> asyncio.Server:
        return await asyncio.start_server(partial(self._meet, segment, neighbours), sock=listener)

    async def close(self) -> None:
        """Of those still talking nobody is waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _meet(
        self, segment: str, neighbours: Neighbours, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        address = str(writer.get_extra_info("peername")[0])

        def who() -> Machine | None:
            return document.asker(self._desired(), segment, address, neighbours(address))

        task = asyncio.create_task(self._serve(who, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, who: Callable[[], Machine | None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The edge: whatever goes wrong on a connection ends it, and nothing else."""
        machine = who()
        if machine is None or not self._has_room(machine):
            writer.transport.abort()
            return
        self._connections[machine.id] += 1
        try:
            await self._converse(machine, who, Wire(reader, writer))
            async with asyncio.timeout(REQUEST_LIMIT):
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError) as why:
            log.debug("metadata.cut_off", machine=machine.id, reason=str(why) or type(why).__name__)
        except Exception:
            log.exception("metadata.failed", machine=machine.id)
        finally:
            writer.transport.abort()
            self._connections -= Counter([machine.id])

    def _has_room(self, machine: Machine) -> bool:
        return self._connections.total() < MOST_CONNECTIONS and self._connections[machine.id] < MOST_OF_A_MACHINE

    async def _converse(self, machine: Machine, who: Callable[[], Machine | None], wire: Wire) -> None:
        is_open = True
        while is_open:
            async with asyncio.timeout(REQUEST_LIMIT):
                try:
                    asked = await wire.request()
                except Malformed as why:
                    await wire.answer(why.answer)
                    return
                now_there = who()
                if asked is None or now_there is None or now_there.id != machine.id:
                    return
                tree = document.tree(self._desired(), now_there)
                await wire.answer(answer(asked, now_there, tree, self._tokens, int(time.time())))
                is_open = wire.goes_on()
