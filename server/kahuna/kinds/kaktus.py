"""Kaktuses: the hosts of a zone, which run instances, and their free capacity."""

from collections.abc import Iterable
from dataclasses import replace

from sqlmodel import Field, func, select

from kahuna.domain.errors import on_field
from kahuna.domain.placement import Host
from kahuna.kinds import command
from kahuna.kinds.agent import check_agents
from kahuna.kinds.kind import Kind
from kahuna.kinds.verbs import changes_state_when_deleting
from kahuna.store.resource import TABLES, Resource
from kahuna.store.transaction import Transaction
from kowa.v2 import agent_pb2, kaktus_pb2, storage_pool_pb2, zone_pb2

# Default overcommit: virtual CPUs per hardware thread, and bytes of instances' memory per byte.
CPU_OVERCOMMIT, MEMORY_OVERCOMMIT = 3, 1


class Kaktus(Resource, table=True):
    zone_id: str = Field(foreign_key="zone.id", index=True)
    name: str
    agent_id: str | None = Field(default=None, foreign_key="agent.id")

    constraint_messages = {
        ("agent_id",): ("IN_USE", "agent", "it belongs to another kaktus; an agent serves one node at most")
    }
    informs = ("agent",)


class Kaktuses(Kind[kaktus_pb2.Kaktus], table=Kaktus):
    def before_create(self, tx: Transaction, resource: kaktus_pb2.Kaktus) -> None:
        check_agents(tx, resource)

    def before_update(self, tx: Transaction, before: kaktus_pb2.Kaktus, after: kaktus_pb2.Kaktus) -> None:
        """Refuses another agent while this one may have something on the host: all of that would count as gone."""
        check_agents(tx, after, before)
        if before.agent and after.agent != before.agent and tx.has_referring(self.name, before.meta.id):
            use = f"host {before.name} has machines or pools that its agent holds"
            raise on_field("IN_USE", "agent", f"{use}; delete them first, or, if the host is gone for good, forget it")

    @changes_state_when_deleting
    def forget(self, tx: Transaction, resource: kaktus_pb2.Kaktus, request: kaktus_pb2.ForgetKaktusRequest) -> None:
        """Unbinds the agent, so that nothing waits for the host any more, and ends the commands sent to it."""
        command.end_all(tx, resource.agent)
        resource.ClearField("agent")


def hosts_of_zone(tx: Transaction, zone: str) -> list[Host]:
    """Returns the hosts of a zone with their use. Instances marked for deletion count until they are gone."""
    found = tx.each(kaktus_pb2.Kaktus, "zone", zone)
    unmarked = [host for host in found if not host.meta.HasField("delete_time")]
    used = _used(tx, [host.meta.id for host in unmarked])
    return [_host(tx, host, *used.get(host.meta.id, (0, 0))) for host in unmarked]


def hosts_of_region(tx: Transaction, region: str) -> list[Host]:
    """Returns the hosts of all zones of a region, named ZONE/HOST."""
    zones = tx.each(zone_pb2.Zone, "region", region)
    found = [(zone, host) for zone in zones for host in hosts_of_zone(tx, zone.meta.id)]
    return [replace(host, name=f"{zone.name}/{host.name}") for zone, host in found]


def locked_host(tx: Transaction, id_: str) -> Host:
    """Returns one host, locked: its free capacity stays free until the end of the transaction."""
    return _host(tx, tx.lock(kaktus_pb2.Kaktus, id_), *_used(tx, [id_]).get(id_, (0, 0)))


def _used(tx: Transaction, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
    instance = TABLES["Instance"].__table__.c  # type: ignore[attr-defined]
    sums = (
        select(instance.kaktus_id, func.sum(instance.vcpus), func.sum(instance.memory))
        .where(instance.kaktus_id.in_(list(ids)))
        .group_by(instance.kaktus_id)
    )
    return {str(id_): (int(cpus), int(memory)) for id_, cpus, memory in tx.session.execute(sums)}


def _host(tx: Transaction, host: kaktus_pb2.Kaktus, used_cpus: int, used_memory: int) -> Host:
    agent = tx.find("Agent", host.agent) if host.agent else None
    stream = agent.status.stream if isinstance(agent, agent_pb2.Agent) else agent_pb2.STREAM_UNSPECIFIED
    return Host(
        id=host.meta.id,
        name=host.name,
        cpus=host.status.cpus * (host.cpu_overcommit or CPU_OVERCOMMIT),
        memory=host.status.memory * (host.memory_overcommit or MEMORY_OVERCOMMIT),
        used_cpus=used_cpus,
        used_memory=used_memory,
        pools=frozenset(pool.meta.id for pool in tx.each(storage_pool_pb2.StoragePool, "kaktus", host.meta.id)),
        stream=stream,
        cordoned=host.cordoned,
        bound=bool(host.agent),
    )
