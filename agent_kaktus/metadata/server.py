"""The service to instances: who asks is known by where a connection comes from, and nobody else is answered."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

from agent_kaktus.compute.desired import Instance
from agent_kaktus.metadata import document
from agent_kaktus.metadata.answer import answer
from agent_kaktus.metadata.http import HttpConnection, Malformed
from agent_kaktus.metadata.tokens import Tokens
from kowa.runtime.desired import Desired
from kowa.runtime.tasks import Tasks

REQUEST_TIMEOUT_S = 5.0  # from the end of one answer to the end of the next
MAX_CONNECTIONS = 512
MAX_CONNECTIONS_PER_INSTANCE = 8

log = structlog.get_logger()

Neighbours = Callable[[str], str]
"""The hardware address behind a network address on one vnet, as the kernel sees it; empty if it sees none."""


class Server:
    """Answers instances of this host on any number of vnets."""

    def __init__(self, desired: Callable[[], Desired], tokens: Tokens, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the wall clock in seconds."""
        self._desired, self._tokens = desired, tokens
        self._connections: Counter[str] = Counter()
        self._clock = clock
        self._tasks = Tasks()

    async def listen(self, listener: socket.socket, vnet: str, neighbours: Neighbours) -> asyncio.Server:
        return await asyncio.start_server(partial(self._accept, vnet, neighbours), sock=listener)

    async def close(self) -> None:
        """Closes listeners and connections without waiting for open requests."""
        await self._tasks.close()

    def _accept(
        self, vnet: str, neighbours: Neighbours, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        address = str(writer.get_extra_info("peername")[0])

        def who() -> Instance | None:
            return document.asker(self._desired(), vnet, address, neighbours(address))

        self._tasks.spawn(self._serve(who, reader, writer), "metadata connection")

    async def _serve(
        self, who: Callable[[], Instance | None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The edge: whatever goes wrong on a connection ends it, and nothing else."""
        instance = who()
        if instance is None or not self._has_room(instance):
            writer.transport.abort()
            return
        self._connections[instance.id] += 1
        try:
            await self._answer_all(instance, who, HttpConnection(reader, writer))
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError) as why:
            log.debug("metadata.cut_off", instance=instance.id, reason=str(why) or type(why).__name__)
        except Exception:
            log.exception("metadata.failed", instance=instance.id)
        finally:
            writer.transport.abort()
            self._connections -= Counter([instance.id])

    def _has_room(self, instance: Instance) -> bool:
        return (
            self._connections.total() < MAX_CONNECTIONS
            and self._connections[instance.id] < MAX_CONNECTIONS_PER_INSTANCE
        )

    async def _answer_all(
        self, instance: Instance, who: Callable[[], Instance | None], connection: HttpConnection
    ) -> None:
        is_open = True
        while is_open:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                try:
                    asked = await connection.request()
                except Malformed as why:
                    await connection.answer(why.answer)
                    return
                now_there = who()
                if asked is None or now_there is None or now_there.id != instance.id:
                    return
                tree = document.tree(self._desired(), now_there)
                await connection.answer(answer(asked, now_there, tree, self._tokens, int(self._clock())))
                is_open = connection.goes_on()
