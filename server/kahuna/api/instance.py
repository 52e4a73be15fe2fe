"""Instances: placement, power, and what a machine holds."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from google.protobuf.message import Message

from kahuna.api.service import Context, StandardMethods, cause_of
from kahuna.domain.errors import Refusal, invalid, not_found
from kahuna.domain.placement import Choice, Demand, choose, no_host, why_not
from kahuna.domain.reach import REACH
from kahuna.store import operations, room
from kahuna.store.transaction import Transaction
from kowa import contract
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import adapter_pb2, instance_pb2, storage_pool_pb2, subnet_pb2, vnet_pb2, volume_pb2, zone_pb2


class InstanceService(StandardMethods):
    """Virtual machines of a project."""

    kind = "Instance"

    def admit(self, tx: Transaction, resource: instance_pb2.Instance) -> None:
        """Takes a host for a new machine, or refuses with the reason of each."""
        zone = tx.find("Zone", resource.zone)
        assert isinstance(zone, zone_pb2.Zone)
        resource.power = resource.power or instance_pb2.POWER_RUNNING
        pools = self._pools(tx, resource, zone.region)
        self._check_adapters(tx, resource, zone.region)
        demand = Demand(resource.vcpus, resource.memory, frozenset(pools))
        resource.kaktus = self._take(tx, demand, choose(demand, room.hosts(tx, resource.zone)))

    def added(self, tx: Transaction, resource: instance_pb2.Instance) -> None:
        """The machine holds its volumes and adapters: each names it, so that no other can."""
        for kind, ids in (("Volume", resource.volumes), ("Adapter", resource.adapters)):
            for id_ in ids:
                belonging = tx.get(kind, id_)
                assert isinstance(belonging, volume_pb2.Volume | adapter_pb2.Adapter)
                belonging.instance = resource.meta.id
                tx.put(kind, belonging)

    def amend(self, tx: Transaction, before: instance_pb2.Instance, after: instance_pb2.Instance) -> None:
        """What a machine grows by is taken on its host."""
        after.power = after.power or instance_pb2.POWER_RUNNING
        more = Demand(max(after.vcpus - before.vcpus, 0), max(after.memory - before.memory, 0))
        if more.vcpus or more.memory:
            found = replace(room.host(tx, before.kaktus), cordoned=False)
            reason = why_not(more, found)
            if reason:
                raise Refusal(
                    "NO_HOST", f"host {found.name} can't hold the growth: it {reason}", details={found.name: reason}
                )

    # The verbs: a desired power each.

    def start(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        """Makes it run."""
        resource.power = instance_pb2.POWER_RUNNING

    def stop(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        """Shuts it down."""
        resource.power = instance_pb2.POWER_STOPPED

    def suspend(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        """Holds it in memory."""
        _check_on(resource, "suspend", "start it instead")
        resource.power = instance_pb2.POWER_SUSPENDED

    def resume(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        """Lets it go on."""
        _check_on(resource, "resume", "start it instead")
        resource.power = instance_pb2.POWER_RUNNING

    # The commands: done once, by the agent.

    async def reboot(self, request: Message, context: Context, method: contract.Method) -> Message:
        """Asks the guest to restart."""
        return await self.command(request, context, method, fleet_pb2.Command(reboot=fleet_pb2.Reboot()))

    async def reset(self, request: Message, context: Context, method: contract.Method) -> Message:
        """Restarts it as the reset button would."""
        return await self.command(request, context, method, fleet_pb2.Command(reset=fleet_pb2.Reset()))

    async def console(
        self, requests: AsyncIterator[instance_pb2.ConsoleInstanceRequest], context: Context, method: contract.Method
    ) -> AsyncIterator[Message]:
        """The serial console, for as long as the caller and the machine's agent keep it open."""
        first = await anext(aiter(requests), None)
        machine = self.store.view.find(self.kind, first.id if first else "")
        if not isinstance(machine, instance_pb2.Instance):
            raise not_found(self.described.command, first.id if first else "")
        cause = cause_of(method)
        await self.store.run(lambda tx: operations.note(tx, cause, self.kind, machine))
        agent = next(iter(REACH.holders(self.store.view, self.kind, machine.meta.id)), "")
        ticket, relay = await self.relays.open(agent, machine.meta.id)

        async def pass_keys() -> None:
            try:
                async for request in requests:
                    await relay.pass_on(relay.keys, request.data)
            finally:
                relay.end()

        typing = asyncio.create_task(pass_keys())
        try:
            async for data in relay.take(relay.output):
                yield instance_pb2.ConsoleInstanceResponse(data=data)
        finally:
            typing.cancel()
            self.relays.close(ticket)
        if typing.done() and isinstance(wrong := typing.exception(), Refusal):
            raise wrong
        if relay.refusal:
            raise Refusal("CONFLICT", relay.refusal)

    def _pools(self, tx: Transaction, resource: instance_pb2.Instance, region: str) -> set[str]:
        """The pools of its disks. Each disk is the project's, free, and lies in the zone's region."""
        pools: set[str] = set()
        for index, id_ in enumerate(resource.volumes):
            field = f"volumes[{index}]"
            volume = tx.lean_on(field, "Volume", id_)
            assert isinstance(volume, volume_pb2.Volume)
            _check_belonging(field, "volume", volume.name, volume.project, volume.instance, resource.project)
            pool = tx.find("StoragePool", volume.storage_pool)
            assert isinstance(pool, storage_pool_pb2.StoragePool)
            if pool.region != region:
                raise invalid(field, f"volume {volume.name} lies in another region than the zone")
            pools.add(volume.storage_pool)
        return pools

    def _check_adapters(self, tx: Transaction, resource: instance_pb2.Instance, region: str) -> None:
        for index, id_ in enumerate(resource.adapters):
            field = f"adapters[{index}]"
            adapter = tx.lean_on(field, "Adapter", id_)
            assert isinstance(adapter, adapter_pb2.Adapter)
            _check_belonging(field, "adapter", adapter.name, adapter.project, adapter.instance, resource.project)
            subnet = tx.find("Subnet", adapter.subnet)
            assert isinstance(subnet, subnet_pb2.Subnet)
            vnet = tx.find("Vnet", subnet.vnet)
            assert isinstance(vnet, vnet_pb2.Vnet)
            if vnet.region != region:
                raise invalid(field, f"adapter {adapter.name} is in another region than the zone")

    def _take(self, tx: Transaction, demand: Demand, choice: Choice) -> str:
        """The best host that still fits once it is locked."""
        refused = dict(choice.refused)
        for candidate in choice.hosts:
            reason = why_not(demand, room.host(tx, candidate.id))
            if not reason:
                return candidate.id
            refused[candidate.name] = reason
        raise no_host(refused)


def _check_on(resource: instance_pb2.Instance, verb: str, remedy: str) -> None:
    if resource.power == instance_pb2.POWER_STOPPED:
        raise Refusal("NOT_RUNNING", f"instance {resource.name} is stopped: there is nothing to {verb}; {remedy}")


def _check_belonging(field: str, noun: str, name: str, project: str, holder: str, wanted: str) -> None:
    if project != wanted:
        raise invalid(field, f"{noun} {name} belongs to another project")
    if holder:
        raise Refusal("IN_USE", f"{field}: {noun} {name} belongs to another instance; delete that or choose another")
