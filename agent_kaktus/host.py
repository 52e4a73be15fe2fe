"""This host, as used by steps and observations: one driver for each part."""

import asyncio
from dataclasses import dataclass

from agent_kaktus import names
from agent_kaktus.actual import Actual
from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.compute.seed import Seeds
from agent_kaktus.metadata.services import MetadataServices
from agent_kaktus.network.bridge import Bridges
from agent_kaktus.network.nftables import MetadataFilter, TapFilters
from agent_kaktus.settings import Settings
from agent_kaktus.storage.dir import DirDriver
from agent_kaktus.storage.imports import Imports
from kowa.runtime.calls import Calls
from kowa.runtime.errors import StepFailed

OBSERVE_TIMEOUT_S = 5.0  # for the packet filters to be listed


@dataclass
class LocalHost:
    """Libvirt, storage, netlink and nftables of the host that the agent runs on."""

    config: Settings
    hypervisor: Hypervisor
    storage: DirDriver
    imports: Imports
    metadata_services: MetadataServices

    def __post_init__(self) -> None:
        self.seeds = Seeds(self.config)
        self.bridges = Bridges()
        self._filter_table = ""
        self._calls = Calls("nft")

    async def observe(self, node: str) -> Actual:
        """The state of a Kaktus' host. Raises LibvirtUnavailable, StepFailed or OSError with the reason."""
        if (table := names.filter_table(node)) != self._filter_table:
            self._filter_table, self.tap_filters, self.metadata_filter = table, TapFilters(table), MetadataFilter(table)
        domains = await self.hypervisor.observe()
        storage = await self.storage.observe()
        try:
            tap_filters, metadata_filter = await self._calls.run("filters", self._observe_filters, OBSERVE_TIMEOUT_S)
            filters_unseen = ""
        except StepFailed as error:
            tap_filters, metadata_filter, filters_unseen = {}, "", str(error)
        return Actual(
            facts=await self.hypervisor.facts(),
            domains={found.id: found for found in domains if found.mark and found.mark.id == found.id},
            foreign_domains={found.id: found for found in domains if not found.mark or found.mark.id != found.id},
            pools=storage.pools,
            images=storage.images,
            created=storage.created,
            importing=self.imports.percent,
            links=await self.bridges.observe(),
            tap_filters=tap_filters,
            filters_unseen=filters_unseen,
            metadata_services=self.metadata_services.observe(),
            metadata_filter=metadata_filter,
            seeds=await self.seeds.observe(),
            unseen={found.id: found.unseen for found in domains if found.unseen},
        )

    async def _observe_filters(self) -> tuple[dict[str, str], str]:
        return await asyncio.gather(self.tap_filters.observe(), self.metadata_filter.observe())
