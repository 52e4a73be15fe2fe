"""What a storage driver can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent_kaktus.actual import Image, PoolSpace


@dataclass(frozen=True, slots=True)
class StorageState:
    """What a driver sees."""

    pools: Mapping[str, PoolSpace]
    images: Mapping[str, Image]
    created: frozenset[str]  # ids of pools and volumes that were there once


class StorageDriver(Protocol):
    """One kind of pool. Each verb may be repeated; all raise StepFailed or OSError with the reason."""

    async def observe(self) -> StorageState: ...

    async def create_pool(self, pool: str) -> None: ...

    async def remove_pool(self, pool: str) -> None: ...  # only an empty one goes

    async def create_volume(self, pool: str, volume: str, size: int, backing: Image | None) -> None: ...

    async def record(self, volume: str) -> None: ...  # that it was there once

    async def grow(self, pool: str, volume: str, size: int) -> None: ...  # while no domain has it open

    async def remove(self, pool: str, id_: str) -> None: ...  # a volume or a template, and the record of it

    def holds(self, pool: str, id_: str) -> bool: ...  # a volume or a template, under its final name

    def space(self, pool: str) -> PoolSpace: ...

    def staging_file(self, pool: str, template: str) -> Path: ...  # where a template's bytes are gathered

    def add_template(self, pool: str, template: str, format_: str) -> None:
        """Makes a template of the staging file. Raises FileExistsError when it is there."""
