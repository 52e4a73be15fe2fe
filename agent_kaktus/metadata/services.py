"""The metadata services of this host: one for each vnet that its instances are on."""

import asyncio
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from typing import TextIO

from agent_kaktus.metadata import veth
from agent_kaktus.metadata.namespace import Namespace
from agent_kaktus.metadata.server import Server
from agent_kaktus.network.nftables import MetadataFilter
from agent_kaktus.network.vnet import Vnet


@dataclass(slots=True)
class Service:
    """The parts of one service. The kernel removes them when the agent ends: nothing else holds the namespace."""

    namespace: Namespace
    port: int  # its index
    neighbours: TextIO
    listening: asyncio.Server
    networks: frozenset[IPv4Network] = frozenset()


class MetadataServices:
    """The services by vnet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._services: dict[str, Service] = {}
        self._changing = asyncio.Lock()

    def observe(self) -> dict[str, frozenset[IPv4Network]]:
        return {id_: service.networks for id_, service in self._services.items()}

    async def serve(self, vnet: Vnet, networks: frozenset[IPv4Network], metadata_filter: MetadataFilter) -> None:
        """The filter first. What is there of a service stays; if its veth is gone, so is the rest."""
        async with self._changing:
            await metadata_filter.put()
            service = self._services.get(vnet.id)
            if service is None or not await asyncio.to_thread(veth.is_joined, vnet.metadata_port, service.port):
                await self._drop(vnet.id)
                service = self._services[vnet.id] = await self._open(vnet)
            add, drop = networks - service.networks, service.networks - networks
            await asyncio.to_thread(service.namespace.run, partial(veth.set_routes, add, drop))
            service.networks = networks
            await asyncio.to_thread(veth.plug, vnet)

    async def remove(self, vnet: Vnet, metadata_filter: MetadataFilter) -> None:
        async with self._changing:
            await asyncio.to_thread(veth.remove, vnet.metadata_port)
            await self._drop(vnet.id)
            if not self._services:
                await metadata_filter.remove()

    async def close(self) -> None:
        async with self._changing:
            for id_ in list(self._services):
                await self._drop(id_)
            await self._server.close()

    async def _open(self, vnet: Vnet) -> Service:
        namespace = await asyncio.to_thread(Namespace)
        try:
            port = await asyncio.to_thread(veth.create, vnet, namespace)
            listener, neighbours = await asyncio.to_thread(namespace.run, veth.set_up)
            listening = await self._server.listen(listener, vnet.id, partial(veth.neighbour, neighbours))
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
