"""Where a template's bytes come from: a web server, or a file in the import folder."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from agent_kaktus.errors import PermanentFailure
from agent_kaktus.storage import address
from kowa import sources

CHUNK_BYTES = 1 << 18  # bytes read at once; of larger parts malloc keeps megabytes when all are read


@dataclass(frozen=True, slots=True)
class Sources:
    """What the operator lets templates come from."""

    folder: Path | None = None
    allowed: address.Allowed = field(default_factory=address.Allowed)

    async def read(self, source: str) -> AsyncGenerator[tuple[bytes, int]]:
        """Its bytes in order, each part with how many there are in all (0: not known)."""
        try:
            meant = sources.parse(source)
        except ValueError as why:
            raise PermanentFailure(f"the source {why}") from why
        async for part in self._fetch(meant) if "://" in meant else self._open(meant):
            yield part

    async def _open(self, name: str) -> AsyncGenerator[tuple[bytes, int]]:
        descriptor = self._descriptor(name)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            while part := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield part, size

    def _descriptor(self, name: str) -> int:
        """Opened with all links followed first, and only if that stays inside the folder."""
        if self.folder is None:
            raise PermanentFailure("this host has no import folder; an operator sets import_dir")
        try:
            folder = self.folder.resolve(strict=True)
            path = (folder / name).resolve(strict=True)
            if path.parent != folder:
                raise PermanentFailure(f"{name} leads out of the import folder")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as why:
            raise PermanentFailure(
                f"the import folder {self.folder} has no readable file {name}: {why.strerror}"
            ) from why
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise PermanentFailure(f"{name} in the import folder is no file")
        return descriptor

    def _fetch(self, source: str) -> AsyncGenerator[tuple[bytes, int]]:
        from agent_kaktus.storage.web import fetch

        return fetch(source, self.allowed)
