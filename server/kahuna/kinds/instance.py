"""Instances: virtual machines, with their placement, power, volumes and adapters."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from google.protobuf.empty_pb2 import Empty
from sqlalchemy import BigInteger
from sqlmodel import Field

from kahuna.domain.errors import Refusal, invalid, on_field
from kahuna.domain.placement import Demand, choose, misfit
from kahuna.kinds import tracking
from kahuna.kinds.kaktus import hosts_of_region, hosts_of_zone, locked_host
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.reach import reach_of_kinds
from kahuna.kinds.tracking import Cause
from kahuna.kinds.verbs import answers_call, changes_state, commands_agent
from kahuna.store.resource import Resource
from kahuna.store.transaction import Transaction
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import adapter_pb2, instance_pb2, kompute_pb2, storage_pool_pb2, subnet_pb2, vnet_pb2, volume_pb2, zone_pb2

_POWER_WORDS = {
    instance_pb2.POWER_UNSPECIFIED: "running",  # the default
    instance_pb2.POWER_RUNNING: "running",
    instance_pb2.POWER_STOPPED: "stopped",
    instance_pb2.POWER_SUSPENDED: "suspended",
}


class Instance(Resource, table=True):
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    region_id: str | None = Field(default=None, foreign_key="region.id", index=True)
    zone_id: str | None = Field(default=None, foreign_key="zone.id", index=True)
    kaktus_id: str | None = Field(default=None, foreign_key="kaktus.id", index=True)
    vcpus: int
    memory: int = Field(sa_type=BigInteger)
    kompute_id: str | None = Field(default=None, foreign_key="kompute.id", index=True)

    part_of = "Kompute"
    reaches = ("kaktus.agent",)


class Instances(Kind[instance_pb2.Instance], table=Instance):
    def before_create(self, tx: Transaction, resource: instance_pb2.Instance) -> None:
        """Chooses the host of a new instance, or refuses with a reason for each host."""
        resource.region = region_of(tx, resource)
        demand = Demand(resource.vcpus, resource.memory, _check_parts(tx, resource))
        if resource.zone:
            area, hosts = "zone", hosts_of_zone(tx, resource.zone)
        else:
            area, hosts = "region", hosts_of_region(tx, resource.region)
        resource.kaktus = choose(demand, hosts, area, lambda host: locked_host(tx, host.id)).id

    def after_create(self, tx: Transaction, cause: Cause, resource: instance_pb2.Instance) -> None:
        """Names the instance in each of its volumes and adapters, so that no other instance can have them."""
        for kind, ids in (("Volume", resource.volumes), ("Adapter", resource.adapters)):
            for id_ in ids:
                part: Any = tx.get(kind, id_)
                part.instance = resource.meta.id
                tx.put(kind, part)

    def before_update(self, tx: Transaction, before: instance_pb2.Instance, after: instance_pb2.Instance) -> None:
        """Checks that the host has what the instance grows by."""
        more = Demand(max(after.vcpus - before.vcpus, 0), max(after.memory - before.memory, 0))
        if more.vcpus or more.memory:
            host = replace(locked_host(tx, before.kaktus), cordoned=False)
            reason = misfit(more, host)
            if reason:
                message = f"host {host.name} can't hold the growth: it {reason}"
                raise Refusal("NO_HOST", message, details={host.name: reason})

    def why_not_as_wanted(self, resource: instance_pb2.Instance, *, seen: bool) -> str:
        """Compares the power states, unless its guest has just switched it off: then the wanted one follows."""
        power = resource.status.power
        if power in (instance_pb2.POWER_UNSPECIFIED, resource.power) or (seen and _is_off_by_guest(resource)):
            return ""
        wanted, found = _POWER_WORDS[resource.power], _POWER_WORDS[power]
        return f"it is wanted {wanted} and its agent sees it {found}; start or stop it to have the agent try again"

    def after_report(self, tx: Transaction, resource: instance_pb2.Instance, *, applied: bool) -> None:
        """Stops an instance that was shut down by its guest."""
        is_unmarked = not resource.meta.HasField("delete_time")
        if applied and is_unmarked and _is_off_by_guest(resource) and resource.power != instance_pb2.POWER_STOPPED:
            cause = Cause("StopInstance", "guest", "it was shut down from inside")
            self.carry_out(tx, cause, "stop", resource.meta.id)
        super().after_report(tx, resource, applied=applied)

    @changes_state
    def start(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        resource.power = instance_pb2.POWER_RUNNING

    @changes_state
    def stop(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        resource.power = instance_pb2.POWER_STOPPED

    @changes_state
    def suspend(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        """Pauses it; its memory is kept."""
        _check_not_stopped(resource, "suspend")
        resource.power = instance_pb2.POWER_SUSPENDED

    @changes_state
    def resume(self, tx: Transaction, resource: instance_pb2.Instance, request: object) -> None:
        _check_not_stopped(resource, "resume")
        resource.power = instance_pb2.POWER_RUNNING

    @commands_agent
    def reboot(self, request: instance_pb2.RebootInstanceRequest) -> fleet_pb2.Command:
        """Asks the guest to restart."""
        return fleet_pb2.Command(reboot=fleet_pb2.Reboot())

    @commands_agent
    def reset(self, request: instance_pb2.ResetInstanceRequest) -> fleet_pb2.Command:
        """Restarts it as the reset button would."""
        return fleet_pb2.Command(reset=fleet_pb2.Reset())

    @answers_call
    async def console(
        self, call: Call, request: instance_pb2.ConsoleInstanceRequest
    ) -> AsyncIterator[instance_pb2.ConsoleInstanceResponse]:
        """Relays the serial console, for as long as the caller and the instance's agent keep it open."""
        instance = self.read(call, request.id)
        await self.platform.store.run(lambda tx: tracking.audit(tx, call.cause, self.name, instance))
        agent = reach_of_kinds().holder(call.reader.view, self.name, request.id)
        async with self.platform.consoles.open(call.cause.caller, agent, request.id) as console:
            yield instance_pb2.ConsoleInstanceResponse(session=console.session)
            async for data in console.output():
                yield instance_pb2.ConsoleInstanceResponse(data=data)

    @answers_call
    async def type_console(
        self, call: Call, request: instance_pb2.TypeConsoleInstanceRequest
    ) -> instance_pb2.TypeConsoleInstanceResponse:
        """Sends keys to a console that the caller has opened."""
        console = self.platform.consoles.find_own(call.cause.caller, request.id, request.session)
        return instance_pb2.TypeConsoleInstanceResponse(offset=await console.type(request.offset, request.data))

    @answers_call
    async def resize_console(self, call: Call, request: instance_pb2.ResizeConsoleInstanceRequest) -> Empty:
        """Sets the size of the caller's terminal."""
        console = self.platform.consoles.find_own(call.cause.caller, request.id, request.session)
        console.resize(request.rows, request.columns)
        return Empty()


def _is_off_by_guest(resource: instance_pb2.Instance) -> bool:
    return resource.status.guest_powered_off and resource.status.power == instance_pb2.POWER_STOPPED


def region_of(tx: Transaction, resource: instance_pb2.Instance | kompute_pb2.Kompute) -> str:
    """Returns the region of a new instance: the given one, which must be that of a given zone."""
    if not resource.zone:
        if not resource.region:
            raise invalid("region", "is required, unless a zone of it is given")
        return resource.region
    zone = tx.one(zone_pb2.Zone, resource.zone)
    if resource.region not in ("", zone.region):
        raise invalid("zone", f"zone {zone.name} lies in another region; choose one of the machine's, or leave one out")
    return zone.region


def _check_not_stopped(resource: instance_pb2.Instance, verb: str) -> None:
    if resource.power == instance_pb2.POWER_STOPPED:
        reason = f"instance {resource.name} is stopped: there is nothing to {verb}; start it instead"
        raise Refusal("NOT_RUNNING", reason)


def _check_parts(tx: Transaction, resource: instance_pb2.Instance) -> frozenset[str]:
    """Returns the pools of the disks. Raises Refusal unless all parts are the project's, free, and in its region."""
    pools = set()
    for index, id_ in enumerate(resource.volumes):
        volume = tx.one(volume_pb2.Volume, id_)
        region = tx.one(storage_pool_pb2.StoragePool, volume.storage_pool).region
        _check_part(resource, f"volumes[{index}]", f"volume {volume.name}", volume, region)
        pools.add(volume.storage_pool)
    for index, id_ in enumerate(resource.adapters):
        adapter = tx.one(adapter_pb2.Adapter, id_)
        region = tx.one(vnet_pb2.Vnet, tx.one(subnet_pb2.Subnet, adapter.subnet).vnet).region
        _check_part(resource, f"adapters[{index}]", f"adapter {adapter.name}", adapter, region)
    return frozenset(pools)


def _check_part(
    resource: instance_pb2.Instance, path: str, noun: str, part: volume_pb2.Volume | adapter_pb2.Adapter, region: str
) -> None:
    if part.project != resource.project:
        raise invalid(path, f"{noun} belongs to another project")
    if part.instance:
        raise on_field("IN_USE", path, f"{noun} belongs to another instance; delete that or choose another")
    if region != resource.region:
        raise invalid(path, f"{noun} lies in another region than the machine")
