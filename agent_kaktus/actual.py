"""What is: what libvirt, the file system and the kernel say now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network


class Power(Enum):
    """How a domain stands."""

    RUNNING = "running"
    PAUSED = "paused"
    STUCK = "stuck"  # paused by QEMU, since a disk could not be written
    ASLEEP = "asleep"  # suspended to memory by its guest
    PANICKED = "panicked"  # its guest's kernel has stopped for good
    OFF = "off"


# What definitions have beyond what is asked for, as a number. Raised with each change of that: machines defined before
# are defined anew and have it from their next start on, and nobody is told to restart them.
FORM = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """What we write into a domain's metadata."""

    id: str
    digest: str  # of what the definition has been asked to be
    ran: int = 0  # the generation at which it was last seen to run
    rests: int = 0  # the generation at which its guest switched it off
    asked: int = 0  # the generation at which we asked it to shut down, if we did since its start
    form: int = FORM  # of the definition


@dataclass(frozen=True, slots=True)
class Domain:
    id: str
    name: str
    power: Power = Power.OFF
    left: bool = False  # switched off by its guest, as far as libvirt told
    persistent: bool = True
    mark: Mark | None = None
    running_digest: str = ""  # of the definition it was started with
    disks: frozenset[str] = frozenset()
    taps: frozenset[str] = frozenset()

    @property
    def is_on(self) -> bool:
        return self.power is not Power.OFF

    def left_at(self, generation: int) -> bool:
        """Whether it is noted that its guest switched it off at a generation."""
        return not self.is_on and self.mark is not None and 0 < generation == self.mark.rests


@dataclass(frozen=True, slots=True)
class PoolSeen:
    capacity: int
    available: int


@dataclass(frozen=True, slots=True)
class Image:
    """A file in a pool, named by the id of a volume or a template."""

    id: str
    pool: str
    format: str
    size: int
    allocation: int = 0
    backing: str = ""  # the name of the file it stands on
    broken: str = ""  # why it is no image

    @property
    def file(self) -> str:
        return f"{self.id}.{self.format}"


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    name: str
    index: int
    is_bridge: bool = False
    is_up: bool = True
    ports: int = 0
    bridge: str = ""  # that it is plugged into
    addresses: frozenset[str] = frozenset()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What libvirt says of the host."""

    cpus: int = 0
    memory: int = 0
    version: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Actual:
    """All of it."""

    facts: Facts = Facts()
    domains: Mapping[str, Domain] = field(default_factory=dict)  # that bear our mark
    others: Mapping[str, Domain] = field(default_factory=dict)
    pools: Mapping[str, PoolSeen] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    made: frozenset[str] = frozenset()  # pools and volumes that were there once
    links: Mapping[str, Link] = field(default_factory=dict)
    guards: Mapping[str, str] = field(default_factory=dict)  # tap -> seal of its chain
    unguarded: str = ""  # why guards can't be looked at
    services: Mapping[str, frozenset[IPv4Network]] = field(default_factory=dict)  # vnet -> whom its metadata reach
    wall: str = ""  # seal of the rules around metadata services; empty where there are none
    seeds: Mapping[str, str] = field(default_factory=dict)  # machine -> digest; empty for a folder without one

    def user(self, path: str) -> Domain | None:
        """The domain that has a file as its disk."""
        domains = (*self.domains.values(), *self.others.values())
        return next((domain for domain in domains if path in domain.disks), None)

    def holder(self, tap: str) -> Domain | None:
        """The domain that has a card with this tap."""
        domains = (*self.domains.values(), *self.others.values())
        return next((domain for domain in domains if tap in domain.taps), None)
