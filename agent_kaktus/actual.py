"""The actual state of the host, read from libvirt, the file system and the kernel, as values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network
from itertools import chain

from kowa.v2 import kaktus_pb2


class Power(Enum):
    """The power state of a domain."""

    RUNNING = "running"
    PAUSED = "paused"
    IO_ERROR = "io-error"  # paused by QEMU because a disk could not be written
    ASLEEP = "asleep"  # suspended to memory by its guest
    PANICKED = "panicked"  # the guest's kernel has crashed
    OFF = "off"


# The version of the parts of a definition that are not requested. Raised when they change: existing instances are then
# defined again and have the change from their next start on; they are not reported as needing a restart.
DEFINITION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """The agent's mark in a domain's metadata: the instance's id, and the generations at which events happened."""

    id: str
    fingerprint: str  # of the requested parts of its definition
    ran_at: int = 0  # it was last observed to run
    powered_off_at: int = 0  # its guest switched it off
    stop_requested_at: int = 0  # a shutdown was requested, if since its start
    version: int = DEFINITION_VERSION


@dataclass(frozen=True, slots=True)
class Domain:
    """A virtual machine of libvirt."""

    id: str
    name: str
    power: Power = Power.OFF
    powered_off: bool = False  # by its guest, as far as libvirt can tell
    persistent: bool = True
    mark: Mark | None = None
    running_fingerprint: str = ""  # of the definition it was started with
    disks: frozenset[str] = frozenset()  # keys of their sources
    taps: frozenset[str] = frozenset()
    unseen: str = ""  # why all but its id and name is from an earlier observation
    is_unknown: bool = False  # whether there is no earlier one, so that it may have any disk and any tap

    @property
    def is_on(self) -> bool:
        return self.power is not Power.OFF

    def was_powered_off_at(self, generation: int) -> bool:
        """Whether its mark records that the guest switched it off at a generation."""
        return not self.is_on and self.mark is not None and 0 < generation == self.mark.powered_off_at


@dataclass(frozen=True, slots=True)
class DiskSource:
    """The source of a disk, in libvirt's terms. Only storage drivers create and interpret it."""

    type: str  # of the disk element, such as `file`
    format: str  # such as `qcow2`
    attributes: tuple[tuple[str, str], ...]  # of the source element

    @property
    def key(self) -> str:
        """The key by which a domain's disks are compared."""
        return source_key(dict(self.attributes))

    def __str__(self) -> str:
        return f"{self.type} {self.key}"


def source_key(attributes: Mapping[str, str]) -> str:
    """The file, device or volume that a source element's attributes name; empty if they name none."""
    return attributes.get("file") or attributes.get("dev") or attributes.get("name", "")


@dataclass(frozen=True, slots=True)
class PoolSpace:
    """The space in a pool, in bytes."""

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
    backing: str = ""  # the name of its backing file
    broken: str = ""  # why it is not a valid image
    disk_key: str = ""  # of its disk source, as in domains

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
    bridge: str = ""  # that it is attached to
    addresses: frozenset[str] = frozenset()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Actual:
    """The state of the host at one time."""

    facts: kaktus_pb2.KaktusStatus = field(default_factory=kaktus_pb2.KaktusStatus)  # the parts that never change
    domains: Mapping[str, Domain] = field(default_factory=dict)  # that have our mark
    foreign_domains: Mapping[str, Domain] = field(default_factory=dict)
    pools: Mapping[str, PoolSpace] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    created: frozenset[str] = frozenset()  # ids of pools and volumes that were created once
    importing: Mapping[str, int] = field(default_factory=dict)  # template -> percent, which keeps changing
    links: Mapping[str, Link] = field(default_factory=dict)
    tap_filters: Mapping[str, str] = field(default_factory=dict)  # tap -> fingerprint of its rules
    filters_unseen: str = ""  # why packet filters can't be listed
    metadata_services: Mapping[str, frozenset[IPv4Network]] = field(default_factory=dict)  # vnet -> served networks
    metadata_filter: str = ""  # fingerprint of the rules of metadata services; empty without rules
    seeds: Mapping[str, str] = field(default_factory=dict)  # instance -> fingerprint; empty for a folder without a seed
    unseen: Mapping[str, str] = field(default_factory=dict)  # instance -> why its domain can't be observed now

    def disk_user(self, disk: str) -> Domain | None:
        """The domain that has a disk, by the key of its source, or may have it."""
        return next((domain for domain in self._all_domains() if disk in domain.disks or domain.is_unknown), None)

    def tap_user(self, tap: str) -> Domain | None:
        """The domain that has an adapter with this tap, or may have it."""
        return next((domain for domain in self._all_domains() if tap in domain.taps or domain.is_unknown), None)

    def _all_domains(self) -> Iterator[Domain]:
        return chain(self.domains.values(), self.foreign_domains.values())
