"""The Kaktus agent as the stream sees it."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import structlog

from agent_kaktus import console
from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.converge import Loop
from agent_kaktus.desired import Template
from agent_kaktus.failures import StepFailed
from agent_kaktus.hands import Hands
from agent_kaktus.memory import Memory
from agent_kaktus.metadata.server import Server
from agent_kaktus.metadata.services import Services
from agent_kaktus.metadata.tokens import Tokens, key
from agent_kaktus.parse import parse
from agent_kaktus.report import Reports
from agent_kaktus.storage.dir import DirPools
from agent_kaktus.storage.template import Imports
from agent_kaktus.told import Told
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Feed, Refused

log = structlog.get_logger()


class Kaktus:
    """A worker: runs the machines of one host."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._hypervisor: Hypervisor | None = None

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Raises Refused when an object can't be understood. What refers to nothing may wait."""
        parse(desired)

    async def act(self, command: fleet_pb2.Command) -> None:
        """Raises Refused with the reason when it can't be done."""
        if self._hypervisor is None:
            raise Refused("the agent is only starting")
        try:
            match command.WhichOneof("action"):
                case "reboot":
                    await self._hypervisor.reboot(command.target)
                case "reset":
                    await self._hypervisor.reset(command.target)
                case other:
                    raise Refused(f"this agent knows no command {other}; upgrade it")
        except StepFailed as why:
            raise Refused(str(why)) from why

    async def console(self, instance: str, keys: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What a machine prints, and has printed; `keys` are typed into it."""
        hypervisor = self._hypervisor
        if hypervisor is None:
            raise Refused("the agent is only starting")
        typing = asyncio.create_task(console.type_in(keys, lambda: hypervisor.serial(instance)))
        try:
            async for data in console.follow(self._told.site.console(instance)):
                yield data
        finally:
            typing.cancel()

    async def run(self, feed: Feed) -> None:
        told, site, memory = self._told, self._told.site, Memory()
        for directory in (site.pools, site.machines):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        storage = DirPools(site.pools, told.state / "made")
        try:
            storage.clean(parse(feed.desired()).pools)
        except Refused as why:  # what an older version took; nothing is cleaned until Kahuna sends a better slice
            log.warning("slice.refused", reason=str(why))

        def ended(template: Template, reason: str) -> None:
            loop.import_ended(template, reason)

        def progressed(template: Template) -> None:
            loop.import_progressed(template)

        imports = Imports(storage, told.sources, ended, progressed, memory.importing)
        hypervisor = self._hypervisor = Hypervisor(told.libvirt_uri, lambda: loop.wake())
        tokens = Tokens(key(told.state / "metadata.key"))
        services = Services(Server(lambda: loop.desired, tokens))
        loop = Loop(site, feed, Hands(site, hypervisor, storage, imports, services), memory, Reports(told.version))
        trimming = asyncio.create_task(console.trim(site.machines))
        try:
            await loop.run()
        finally:
            trimming.cancel()
            await services.close()
            await imports.close()
            await hypervisor.close()
