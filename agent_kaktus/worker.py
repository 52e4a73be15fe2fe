"""The Kaktus agent as the stream sees it."""

from collections.abc import Mapping
from importlib.metadata import version

from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.converge import Loop
from agent_kaktus.desired import Template
from agent_kaktus.hands import Hands
from agent_kaktus.memory import Memory
from agent_kaktus.parse import parse
from agent_kaktus.report import Reports
from agent_kaktus.settings import Settings
from agent_kaktus.storage.address import Allowed
from agent_kaktus.storage.dir import DirPools
from agent_kaktus.storage.source import Sources
from agent_kaktus.storage.template import Imports
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Feed

VERSION = version("kowa")


class Kaktus:
    """A worker: runs the machines of one host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Raises Refused when an object can't be understood. What refers to nothing may wait."""
        parse(desired)

    async def run(self, feed: Feed) -> None:
        settings, site, memory = self._settings, self._settings.site(), Memory()
        for directory in (site.pools, site.machines):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        storage = DirPools(site.pools, settings.state / "made")
        storage.clean(parse(feed.desired()).pools)

        def ended(template: Template, reason: str) -> None:
            loop.import_ended(template, reason)

        def progressed(template: Template) -> None:
            loop.import_progressed(template)

        sources = Sources(settings.import_dir, Allowed(settings.allowed_names(), settings.allowed_networks()))
        imports = Imports(storage, sources, ended, progressed, memory.importing)
        hypervisor = Hypervisor(settings.libvirt_uri, lambda: loop.wake())
        loop = Loop(site, feed, Hands(site, hypervisor, storage, imports), memory, Reports(VERSION))
        try:
            await loop.run()
        finally:
            await imports.close()
            await hypervisor.close()
