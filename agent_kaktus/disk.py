"""A disk's source: how libvirt is told where its bytes are. Storage drivers make it; others only pass it on."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DiskSource:
    """In libvirt's words."""

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
