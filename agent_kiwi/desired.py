"""What is wanted: the agent's slice, parsed into values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from google.protobuf.message import Message

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.parsing import Made, address, network, parse_each, the_one
from kowa.v2 import kiwi_pb2, region_pb2, subnet_pb2, vnet_pb2


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
    nodes: dict[str, Node] = {}
    desired = Desired()
    for key, thing in parse_each(slice_, _parse):
        match thing:
            case Node():
                nodes[key] = thing
            case Segment():
                desired.segments[key] = thing
            case Range():
                desired.ranges[key] = thing
    return replace(desired, node=the_one("kiwi", nodes))


def _parse(made: Made, sent: Message) -> Thing:
    match sent:
        case region_pb2.Region():
            return Place(*made)
        case kiwi_pb2.Kiwi():
            return Node(*made, sent.name)
        case vnet_pb2.Vnet():
            return Segment(*made, sent.name)
        case subnet_pb2.Subnet():
            return _range(made, sent)
    raise ValueError("this agent knows no such kind; a newer one may")


def _range(made: Made, sent: subnet_pb2.Subnet) -> Range:
    _, _, gone = made
    if gone:
        return Range(*made, sent.name, sent.vnet, None, None, ())
    cidr = network(sent.cidr)
    gateway = address("gateway", sent.gateway) if sent.gateway else None
    if gateway and (gateway not in cidr or gateway in (cidr.network_address, cidr.broadcast_address)):
        raise ValueError(f"gateway {gateway} is not a host address of {cidr}")
    return Range(*made, sent.name, sent.vnet, cidr, gateway, tuple(address("dns", one) for one in sent.dns))
