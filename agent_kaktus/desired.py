"""What is wanted: the agent's slice as values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from google.protobuf.message import Message

from agent_kaktus import names
from kowa.v2 import instance_pb2


@dataclass(frozen=True, slots=True)
class Thing:
    """What every object has."""

    id: str
    generation: int
    gone: bool


@dataclass(frozen=True, slots=True)
class Passive(Thing):
    """An object that asks nothing of this host: a region, a zone, a project."""

    kind: type[Message]
    name: str = ""
    region: str = ""  # of a zone


@dataclass(frozen=True, slots=True)
class Host(Thing):
    """This host."""

    name: str


@dataclass(frozen=True, slots=True)
class Pool(Thing):
    name: str
    is_directory: bool


@dataclass(frozen=True, slots=True)
class Template(Thing):
    name: str
    pool: str
    source: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Volume(Thing):
    name: str
    pool: str
    template: str
    size: int


@dataclass(frozen=True, slots=True)
class Segment(Thing):
    """A vnet."""

    name: str
    interface: str

    @property
    def bridge(self) -> str:
        return self.interface or names.bridge(self.id)

    @property
    def port(self) -> str:
        """That of its metadata service."""
        return names.port(self.id)


@dataclass(frozen=True, slots=True)
class Range(Thing):
    """A subnet."""

    name: str
    segment: str
    network: IPv4Network
    gateway: IPv4Address | None
    dns: tuple[str, ...]

    @property
    def held(self) -> str:
        """The gateway's address as a bridge has it."""
        return f"{self.gateway}/{self.network.prefixlen}" if self.gateway else ""


@dataclass(frozen=True, slots=True)
class Card(Thing):
    """An adapter."""

    name: str
    range: str
    mac: str
    address: IPv4Address

    @property
    def tap(self) -> str:
        return names.tap(self.id)


@dataclass(frozen=True, slots=True)
class Machine(Thing):
    """An instance."""

    name: str
    vcpus: int
    memory: int
    power: instance_pb2.Power
    volumes: tuple[str, ...]
    cards: tuple[str, ...]
    user_data: str = field(default="", repr=False)
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ssh_keys: tuple[str, ...] = field(default=(), repr=False)
    project: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Port:
    """A card with where it is plugged in."""

    card: Card
    range: Range
    segment: Segment


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a machine's references lead to."""

    disks: tuple[Volume, ...]
    ports: tuple[Port, ...]


class Missing(Exception):
    """A reference that leads nowhere, or to something that goes: `volume 6f...`."""


Kind = TypeVar("Kind", bound=Thing)


@dataclass(frozen=True, slots=True)
class Desired:
    """The slice, by kind and id."""

    host: Host | None = None
    pools: dict[str, Pool] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    passive: dict[str, Passive] = field(default_factory=dict)

    def things(self) -> Iterator[Thing]:
        """All of it, each after what it stands on."""
        yield from self.passive.values()
        if self.host:
            yield self.host
        for kind in (self.pools, self.templates, self.volumes, self.segments, self.ranges, self.cards, self.machines):
            yield from kind.values()

    def outfit(self, machine: Machine) -> Outfit:
        """Raises Missing, naming the first reference that leads nowhere."""
        return Outfit(
            tuple(_present("volume", self.volumes, id_) for id_ in machine.volumes),
            tuple(self.port(_present("adapter", self.cards, id_)) for id_ in machine.cards),
        )

    def port(self, card: Card) -> Port:
        range_ = _present("subnet", self.ranges, card.range)
        return Port(card, range_, _present("vnet", self.segments, range_.segment))


def _present(noun: str, things: Mapping[str, Kind], id_: str) -> Kind:
    thing = things.get(id_)
    if thing is None:
        raise Missing(f"{noun} {id_}")
    if thing.gone:
        raise Missing(f"{noun} {id_}, which is being deleted")
    return thing
