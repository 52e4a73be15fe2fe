"""Actual state: what libvirt, the file system and the kernel say now, as values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network
from itertools import chain
from typing import Any

from kowa.v2 import kaktus_pb2


class Power(Enum):
    """How a domain stands."""

    RUNNING = "running"
    PAUSED = "paused"
    IO_ERROR = "io-error"  # paused by QEMU, since a disk could not be written
    ASLEEP = "asleep"  # suspended to memory by its guest
    PANICKED = "panicked"  # its guest's kernel has stopped for good
    OFF = "off"


# Of what definitions have beyond what is requested. Raised with each change of that: instances defined before are
# defined anew and have it from their next start on; nobody is asked to restart them.
DEFINITION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Our mark in a domain's metadata: whose it is, and at which generations what happened to it."""

    id: str
    fingerprint: str  # of what was requested in its definition
    ran_at: int = 0  # it was last seen to run
    powered_off_at: int = 0  # its guest switched it off
    stop_requested_at: int = 0  # it was asked to shut down, if since its start
    version: int = DEFINITION_VERSION


@dataclass(frozen=True, slots=True)
class Domain:
    """A virtual machine as libvirt has it."""

    id: str
    name: str
    power: Power = Power.OFF
    powered_off: bool = False  # by its guest, as far as libvirt says
    persistent: bool = True
    mark: Mark | None = None
    running_fingerprint: str = ""  # of the definition it was started with
    disks: frozenset[str] = frozenset()  # keys of their sources
    taps: frozenset[str] = frozenset()

    @property
    def is_on(self) -> bool:
        return self.power is not Power.OFF

    def was_powered_off_at(self, generation: int) -> bool:
        """Whether it is noted that its guest switched it off at a generation."""
        return not self.is_on and self.mark is not None and 0 < generation == self.mark.powered_off_at


@dataclass(frozen=True, slots=True)
class DiskSource:
    """Where a disk's bytes are, in libvirt's words. Storage drivers make it; others only pass it on."""

    type: str  # of the disk element, such as `file`
    format: str  # such as `qcow2`
    attributes: tuple[tuple[str, str], ...]  # of the source element

    @property
    def key(self) -> str:
        """By which a domain's disks are compared."""
        return source_key(dict(self.attributes))

    def __str__(self) -> str:
        return f"{self.type} {self.key}"


def source_key(attributes: Mapping[str, str]) -> str:
    """What a source element's attributes name; empty if they name nothing."""
    return attributes.get("file") or attributes.get("dev") or attributes.get("name", "")


@dataclass(frozen=True, slots=True)
class PoolSpace:
    """Room in a pool, in bytes."""

    capacity: int
    available: int


@dataclass(frozen=True, slots=True)
class Image:
    """A file in a pool, named by the id of a volume or a template. Sizes are bytes."""

    id: str
    pool: str
    format: str
    size: int
    allocation: int = 0
    backing: str = ""  # the name of the file it stands on
    broken: str = ""  # why it is no image
    disk_key: str = ""  # of its source, as domains have it

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
class Actual:
    """All that is on the host at one time."""

    facts: kaktus_pb2.KaktusStatus = field(default_factory=kaktus_pb2.KaktusStatus)  # what never changes of it
    domains: Mapping[str, Domain] = field(default_factory=dict)  # that bear our mark
    foreign_domains: Mapping[str, Domain] = field(default_factory=dict)
    pools: Mapping[str, PoolSpace] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    created: frozenset[str] = frozenset()  # ids of pools and volumes that were there once
    importing: Mapping[str, int] = field(default_factory=dict)  # template -> percent; it moves on meanwhile
    links: Mapping[str, Link] = field(default_factory=dict)
    tap_filters: Mapping[str, str] = field(default_factory=dict)  # tap -> fingerprint of its rules
    filters_unseen: str = ""  # why packet filters can't be listed
    metadata_services: Mapping[str, frozenset[IPv4Network]] = field(default_factory=dict)  # vnet -> whom it answers
    metadata_filter: str = ""  # fingerprint of the rules around metadata services; empty where there are none
    seeds: Mapping[str, str] = field(default_factory=dict)  # instance -> fingerprint; empty for a folder without one
    by_kind: Mapping[type, Any] = field(default_factory=dict)  # what kinds have observed themselves

    def disk_user(self, disk: str) -> Domain | None:
        """The domain that has a disk, by the key of its source."""
        return next((domain for domain in self._all_domains() if disk in domain.disks), None)

    def tap_user(self, tap: str) -> Domain | None:
        """The domain that has an adapter with this tap."""
        return next((domain for domain in self._all_domains() if tap in domain.taps), None)

    def _all_domains(self) -> Iterator[Domain]:
        return chain(self.domains.values(), self.foreign_domains.values())
