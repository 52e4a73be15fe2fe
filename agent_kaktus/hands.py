"""The hands of the agent: look at the host, and do one step."""

import asyncio

from agent_kaktus import seed, steps
from agent_kaktus.actual import Actual, Mark
from agent_kaktus.compute import domain
from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.desired import Card, Machine, Outfit
from agent_kaktus.failures import StepFailed
from agent_kaktus.metadata.services import Services
from agent_kaktus.network import bridge
from agent_kaktus.network.guard import Guards
from agent_kaktus.site import Site
from agent_kaktus.steps import Step
from agent_kaktus.storage import Storage
from agent_kaktus.storage.template import Imports


class Hands:
    """Libvirt, storage, netlink and nftables of this host."""

    def __init__(
        self, site: Site, hypervisor: Hypervisor, storage: Storage, imports: Imports, services: Services
    ) -> None:
        self._site = site
        self._services = services
        self._hypervisor = hypervisor
        self._storage = storage
        self._imports = imports

    async def look(self, guards: Guards) -> Actual:
        """All that is. Raises Away while libvirt is."""
        domains = await self._hypervisor.look()
        pools, images, made = await asyncio.to_thread(self._storage.look)
        put, wall, unguarded = await _look_at(guards)
        return Actual(
            facts=await self._hypervisor.facts(),
            domains={found.id: found for found in domains if found.mark and found.mark.id == found.id},
            others={found.id: found for found in domains if not found.mark or found.mark.id != found.id},
            pools=pools,
            images=images,
            made=made,
            links=await asyncio.to_thread(bridge.look),
            guards=put,
            unguarded=unguarded,
            services=self._services.look(),
            wall=wall,
            seeds=await asyncio.to_thread(seed.look, self._site),
        )

    async def do(self, step: Step, guards: Guards) -> None:
        match step:
            case steps.MakePool():
                await asyncio.to_thread(self._storage.make_pool, step.pool.id)
            case steps.RemovePool():
                await asyncio.to_thread(self._storage.remove_pool, step.pool.id)
            case steps.ImportTemplate():
                # The look that asks for it may be older than the end of its import.
                if not self._storage.holds(step.template.id, step.template.pool):
                    self._imports.begin(step.template)
            case steps.StopImport():
                await self._imports.stop(step.template.id)
            case steps.RemoveTemplate():
                await asyncio.to_thread(self._storage.remove, step.template.id, step.image.pool)
            case steps.CreateVolume():
                await self._storage.create(step.volume, step.backing)
            case steps.RecordVolume():
                await asyncio.to_thread(self._storage.record, step.volume.id)
            case steps.GrowVolume():
                await self._grow(step)
            case steps.RemoveVolume():
                await asyncio.to_thread(self._storage.remove, step.volume.id, step.pool)
            case steps.MakeBridge():
                await asyncio.to_thread(bridge.make, step.segment.bridge, step.mac)
            case steps.SetBridge():
                await asyncio.to_thread(bridge.change, step.segment.bridge, step.add, step.drop)
            case steps.RemoveBridge():
                await asyncio.to_thread(bridge.remove, step.segment.bridge)
            case steps.MakeService():
                await self._services.make(step.segment, step.networks, guards.wall)
            case steps.RemoveService():
                await self._services.remove(step.segment, guards.wall)
            case steps.RemoveWall():
                await guards.wall.remove()
            case steps.Unguard():
                await guards.remove(step.taps)
            case steps.Guard():
                await self._guard(step.cards, guards)
            case _:
                await self._do_to_machine(step)

    async def _do_to_machine(self, step: Step) -> None:
        match step:
            case steps.WriteSeed():
                await asyncio.to_thread(seed.write, self._site, step.machine, step.outfit)
            case steps.RemoveSeed():
                await asyncio.to_thread(seed.remove, self._site, step.machine.id)
            case steps.Define():
                await self._hypervisor.define(self._definition(step.machine, step.outfit, step.mark))
            case steps.Start():
                await self._hypervisor.start(step.machine.id)
            case steps.Resume():
                await self._hypervisor.resume(step.machine.id)
            case steps.Suspend():
                await self._hypervisor.suspend(step.machine.id)
            case steps.Shutdown():
                await self._hypervisor.shutdown(step.machine.id)
            case steps.CutPower():
                await self._hypervisor.cut(step.machine.id)
            case steps.Undefine():
                await self._hypervisor.undefine(step.machine.id)
            case steps.Note():
                await self._hypervisor.note(step.machine.id, step.mark)
            case _:
                raise NotImplementedError(step)

    def _definition(self, machine: Machine, outfit: Outfit, mark: Mark) -> str:
        return domain.marked(domain.definition(self._site, machine, outfit), mark)

    async def _grow(self, step: steps.GrowVolume) -> None:
        if step.domain:
            path = self._site.volume(step.volume.pool, step.volume.id)
            await self._hypervisor.resize(step.domain, str(path), step.volume.size)
        else:
            await self._storage.grow(step.volume)

    async def _guard(self, cards: tuple[Card, ...], guards: Guards) -> None:
        links = await asyncio.to_thread(bridge.look)
        for card in cards:
            if card.tap not in links:
                raise StepFailed(f"tap {card.tap} is not there")
            await guards.put(card, links[card.tap].index)


async def _look_at(guards: Guards) -> tuple[dict[str, str], str, str]:
    """The guards, the wall, and why they can't be seen."""
    try:
        put, wall = await asyncio.gather(guards.look(), guards.wall.look())
    except StepFailed as why:
        return {}, "", str(why)
    return put, wall, ""
