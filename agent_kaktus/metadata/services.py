"""The metadata services of this host: one for each vnet that its machines are on."""

import asyncio
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from typing import TextIO

from agent_kaktus.desired import Segment
from agent_kaktus.metadata import veth
from agent_kaktus.metadata.namespace import Namespace
from agent_kaktus.metadata.server import Server
from agent_kaktus.network.wall import Wall


@dataclass(slots=True)
class Service:
    """What there is of one. All of it goes when the agent does, since nobody else holds its namespace."""

    namespace: Namespace
    port: int  # its index
    neighbours: TextIO
    listening: asyncio.Server
    networks: frozenset[IPv4Network] = frozenset()


class Services:
    """All of them, by vnet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._services: dict[str, Service] = {}
        self._changing = asyncio.Lock()

    def look(self) -> dict[str, frozenset[IPv4Network]]:
        return {id_: service.networks for id_, service in self._services.items()}

    async def make(self, segment: Segment, networks: frozenset[IPv4Network], wall: Wall) -> None:
        """The wall first. What is there of a service stays; if its wire is gone, so is the rest."""
        async with self._changing:
            await wall.put()
            service = self._services.get(segment.id)
            if service is None or not await asyncio.to_thread(veth.is_joined, segment.port, service.port):
                await self._drop(segment.id)
                service = self._services[segment.id] = await self._open(segment)
            add, drop = networks - service.networks, service.networks - networks
            await asyncio.to_thread(service.namespace.run, partial(veth.reach, add, drop))
            service.networks = networks
            await asyncio.to_thread(veth.plug, segment)

    async def remove(self, segment: Segment, wall: Wall) -> None:
        async with self._changing:
            await asyncio.to_thread(veth.remove, segment.port)
            await self._drop(segment.id)
            if not self._services:
                await wall.remove()

    async def close(self) -> None:
        async with self._changing:
            for id_ in list(self._services):
                await self._drop(id_)
            await self._server.close()

    async def _open(self, segment: Segment) -> Service:
        namespace = await asyncio.to_thread(Namespace)
        try:
            port = await asyncio.to_thread(veth.join, segment, namespace)
            listener, neighbours = await asyncio.to_thread(namespace.run, veth.furnish)
            listening = await self._server.listen(listener, segment.id, partial(veth.neighbour, neighbours))
        except BaseException:
            namespace.close()
            raise
        return Service(namespace, port, neighbours, listening)

    async def _drop(self, id_: str) -> None:
        service = self._services.pop(id_, None)
        if service is not None:
            service.listening.close()
            service.neighbours.close()
            service.namespace.close()
