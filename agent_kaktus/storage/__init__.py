"""Disks and the templates they are made from, behind one interface: pools of other makes are to follow."""

from pathlib import Path
from typing import Protocol

from agent_kaktus.actual import Image, PoolSeen
from agent_kaktus.desired import Volume


class Storage(Protocol):
    """What a kind of pool can do. Each verb may be repeated."""

    def look(self) -> tuple[dict[str, PoolSeen], dict[str, Image], frozenset[str]]:
        """Pools, images by id, and what was made once."""

    def make_pool(self, pool: str) -> None: ...

    def remove_pool(self, pool: str) -> None: ...

    async def create(self, volume: Volume, backing: Image | None) -> None: ...

    def record(self, volume: str) -> None: ...

    async def grow(self, volume: Volume) -> None: ...

    def remove(self, id_: str, pool: str) -> None: ...

    def holds(self, id_: str, pool: str) -> bool:
        """Whether a volume or a template is there under its final name."""

    def place(self, pool: str, template: str) -> Path: ...

    def settle(self, pool: str, template: str, format_: str) -> None: ...
