"""What a storage driver can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent_kaktus.actual import Image, PoolSpace
from agent_kaktus.config import HostConfig
from agent_kaktus.disk import DiskSource


class Layout(Protocol):
    """Where a driver keeps pools and images. Pure."""

    def __init__(self, config: HostConfig) -> None: ...

    def pool(self, pool: str) -> str:
        """A pool's place, in words for people."""

    def volume(self, pool: str, volume: str) -> DiskSource:
        """A volume's place, for libvirt."""


@dataclass(frozen=True, slots=True)
class StorageState:
    """What a driver sees."""

    pools: Mapping[str, PoolSpace]
    images: Mapping[str, Image]
    created: frozenset[str]  # ids of pools and volumes that were there once


class StorageDriver(Protocol):
    """One kind of pool. Each verb may be repeated; all raise StepFailed or OSError with the reason."""

    async def look(self) -> StorageState: ...

    async def create_pool(self, pool: str) -> None: ...

    async def remove_pool(self, pool: str) -> None:
        """Only an empty one goes."""

    async def create_volume(self, pool: str, volume: str, size: int, backing: Image | None) -> None: ...

    async def record(self, volume: str) -> None:
        """Remembers that a volume was there once."""

    async def grow(self, pool: str, volume: str, size: int) -> None:
        """While no domain has it open."""

    async def remove(self, pool: str, id_: str) -> None:
        """A volume or a template, and the memory of it."""

    def holds(self, pool: str, id_: str) -> bool:
        """Whether a volume or a template is there under its final name."""

    def staging_file(self, pool: str, template: str) -> Path:
        """Where a template's bytes are gathered before anybody sees it."""

    def space(self, pool: str) -> PoolSpace: ...

    def add_template(self, pool: str, template: str, format_: str) -> None:
        """Makes a template of the staging file. Raises FileExistsError when it is there."""
