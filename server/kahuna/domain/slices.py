"""Which agents a resource concerns, and so what each agent's slice of the desired state is."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from google.protobuf.message import Message

from kowa.v2 import adapter_pb2, agent_pb2, instance_pb2, kaktus_pb2, kiwi_pb2, storage_pool_pb2, subnet_pb2

# The kinds an agent is told of, in the order it must know them.
KINDS = (
    "Region", "Zone", "Project", "Kaktus", "Kiwi", "StoragePool", "Template", "Volume", "Vnet", "Subnet", "Adapter",
    "Instance",
)  # fmt: skip
# Of these, what an agent makes on its host: a marked one goes only when each agent it concerns reports it gone.
HELD = frozenset({"StoragePool", "Template", "Volume", "Vnet", "Subnet", "Adapter", "Instance"})


class Reader(Protocol):
    """A set of resources to walk: the view, or a transaction."""

    def find(self, kind: str, id_: str) -> Message | None:
        """One resource, or nothing."""

    def referring(self, kind: str, field: str, target: str) -> Iterable[Message]:
        """The resources of a kind whose field names the target."""


def agents(reader: Reader, kind: str, resource: Message) -> set[str]:
    """The ids of the agents that a resource concerns."""
    return set(_agents(reader, kind, resource))


def concerns(reader: Reader, agent: str, kind: str, resource: Message) -> bool:
    """Whether a resource concerns an agent: as `agents` has it, but without a walk over all hosts of a region."""
    match kind:
        case "Region":
            return _id(resource) in _regions(reader, agent)
        case "Vnet":
            return resource.region in _regions(reader, agent)  # type: ignore[attr-defined]
        case "Subnet":
            assert isinstance(resource, subnet_pb2.Subnet)
            vnet = reader.find("Vnet", resource.vnet)
            return vnet is not None and concerns(reader, agent, "Vnet", vnet)
        case _:
            return agent in _agents(reader, kind, resource)


def members(reader: Reader, agent: str) -> set[tuple[str, str]]:
    """The slice of an agent, as (kind, id): its node and all that concerns it."""
    found: set[tuple[str, str]] = set()
    for node in reader.referring("Kaktus", "agent", agent):
        assert isinstance(node, kaktus_pb2.Kaktus)
        zone = reader.find("Zone", node.zone)
        found |= {("Kaktus", node.meta.id), ("Zone", node.zone)}
        found |= _backbone(reader, zone.region if zone else "")  # type: ignore[attr-defined]
        for pool in _named(reader.referring("StoragePool", "kaktus", node.meta.id)):
            found.add(("StoragePool", pool))
            found |= {("Template", id_) for id_ in _named(reader.referring("Template", "storage_pool", pool))}
            found |= {("Volume", id_) for id_ in _named(reader.referring("Volume", "storage_pool", pool))}
        for machine in reader.referring("Instance", "kaktus", node.meta.id):
            assert isinstance(machine, instance_pb2.Instance)
            found |= {("Instance", machine.meta.id), ("Project", machine.project)}
            found |= {("Adapter", id_) for id_ in _named(reader.referring("Adapter", "instance", machine.meta.id))}
    for node in reader.referring("Kiwi", "agent", agent):
        assert isinstance(node, kiwi_pb2.Kiwi)
        found |= {("Kiwi", node.meta.id)} | _backbone(reader, node.region)
    return found


def _regions(reader: Reader, agent: str) -> set[str]:
    """Where an agent's node stands."""
    kiwis = reader.referring("Kiwi", "agent", agent)
    zones = (reader.find("Zone", host.zone) for host in reader.referring("Kaktus", "agent", agent))  # type: ignore[attr-defined]
    return {place.region for place in (*kiwis, *zones) if place is not None}  # type: ignore[attr-defined]


def _backbone(reader: Reader, region: str) -> set[tuple[str, str]]:
    found = {("Region", region)}
    for vnet in _named(reader.referring("Vnet", "region", region)):
        found.add(("Vnet", vnet))
        found |= {("Subnet", id_) for id_ in _named(reader.referring("Subnet", "vnet", vnet))}
    return found


def _agents(reader: Reader, kind: str, resource: Message) -> Iterator[str]:
    match kind:
        case "Kaktus" | "Kiwi":
            assert isinstance(resource, kaktus_pb2.Kaktus | kiwi_pb2.Kiwi)
            if resource.agent:
                yield resource.agent
        case "Zone":
            for host in reader.referring("Kaktus", "zone", _id(resource)):
                yield from _agents(reader, "Kaktus", host)
        case "Region":
            for zone in reader.referring("Zone", "region", _id(resource)):
                yield from _agents(reader, "Zone", zone)
            for kiwi in reader.referring("Kiwi", "region", _id(resource)):
                yield from _agents(reader, "Kiwi", kiwi)
        case "Project":
            for machine in reader.referring("Instance", "project", _id(resource)):
                yield from _agents(reader, "Instance", machine)
        case "StoragePool" | "Instance":
            assert isinstance(resource, storage_pool_pb2.StoragePool | instance_pb2.Instance)
            yield from _via(reader, "Kaktus", resource.kaktus)
        case "Template" | "Volume":
            yield from _via(reader, "StoragePool", resource.storage_pool)  # type: ignore[attr-defined]
        case "Vnet":
            yield from _via(reader, "Region", resource.region)  # type: ignore[attr-defined]
        case "Subnet":
            assert isinstance(resource, subnet_pb2.Subnet)
            yield from _via(reader, "Vnet", resource.vnet)
        case "Adapter":
            assert isinstance(resource, adapter_pb2.Adapter)
            yield from _via(reader, "Instance", resource.instance)


def _via(reader: Reader, kind: str, id_: str) -> Iterator[str]:
    parent = reader.find(kind, id_) if id_ else None
    if parent is not None:
        yield from _agents(reader, kind, parent)


def has_signed_in(reader: Reader, agent: str) -> bool:
    """Whether an agent can hold anything at all."""
    found = reader.find("Agent", agent)
    return isinstance(found, agent_pb2.Agent) and found.status.epoch > 0


def _named(resources: Iterable[Message]) -> Iterator[str]:
    return (_id(resource) for resource in resources)


def _id(resource: Message) -> str:
    return str(resource.meta.id)  # type: ignore[attr-defined]
