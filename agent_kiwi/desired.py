"""What is wanted: the agent's slice, parsed into values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from uuid import UUID

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused
from kowa.v2 import subnet_pb2


@dataclass(frozen=True, slots=True)
class Thing:
    """What every object has."""

    id: str
    generation: int
    gone: bool


@dataclass(frozen=True, slots=True)
class Node(Thing):
    """This node."""

    name: str


@dataclass(frozen=True, slots=True)
class Place(Thing):
    """The region, which asks nothing of this node."""


@dataclass(frozen=True, slots=True)
class Segment(Thing):
    """A vnet."""

    name: str


@dataclass(frozen=True, slots=True)
class Range(Thing):
    """A subnet. What is gone has no addresses any more, and is not asked for them."""

    name: str
    segment: str
    network: IPv4Network | None
    gateway: IPv4Address | None
    dns: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class Desired:
    """The slice, by kind and id."""

    node: Node | None = None
    segments: dict[str, Segment] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)


def parse(slice_: Mapping[str, fleet_pb2.Object]) -> Desired:
    """Raises Refused, naming the object, when one can't be understood. What refers to nothing may wait."""
    nodes: list[Node] = []
    desired = Desired()
    for key, sent in slice_.items():
        kind = sent.resource.WhichOneof("kind") or "unknown kind"
        try:
            thing = _parse(key, sent, kind)
        except ValueError as why:
            raise Refused(f"{kind} {key}: {why}") from why
        match thing:
            case Node():
                nodes.append(thing)
            case Segment():
                desired.segments[key] = thing
            case Range():
                desired.ranges[key] = thing
    if len(nodes) > 1:
        raise Refused(f"kiwi {nodes[1].id}: there is another, {nodes[0].id}; an agent belongs to one")
    return Desired(nodes[0] if nodes else None, desired.segments, desired.ranges)


def _parse(key: str, sent: fleet_pb2.Object, kind: str) -> Thing:
    id_ = _uuid(sent.id)
    if id_ != key:
        raise ValueError(f"is sent as {key}")
    made = id_, sent.generation, sent.gone
    match kind:
        case "region":
            return Place(*made)
        case "kiwi":
            return Node(*made, sent.resource.kiwi.name)
        case "vnet":
            return Segment(*made, sent.resource.vnet.name)
        case "subnet":
            return _range(made, sent.resource.subnet)
    raise ValueError("this agent knows no such kind; a newer one may")


def _range(made: tuple[str, int, bool], sent: subnet_pb2.Subnet) -> Range:
    _, _, gone = made
    if gone:
        return Range(*made, sent.name, sent.vnet, None, None, ())
    try:
        network = IPv4Network(sent.cidr)
    except ValueError as why:
        raise ValueError(f"cidr {sent.cidr!r} is not a network: {why}") from why
    gateway = _address("gateway", sent.gateway) if sent.gateway else None
    if gateway and (gateway not in network or gateway in (network.network_address, network.broadcast_address)):
        raise ValueError(f"gateway {gateway} is not a host address of {network}")
    return Range(*made, sent.name, sent.vnet, network, gateway, tuple(_address("dns", one) for one in sent.dns))


def _address(what: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as why:
        raise ValueError(f"{what} {text!r} is not an IPv4 address") from why


def _uuid(text: str) -> str:
    if text != str(UUID(text)):
        raise ValueError(f"id {text!r} is not written as ids are")
    return text
