"""Imports of templates: each a task of its own, so that a long download holds up no machine."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from agent_kaktus.desired import Template
from agent_kaktus.failures import GivenUp
from agent_kaktus.storage import Storage, image
from agent_kaktus.storage.source import BrokenOff, Sources
from kowa.runtime import crashpoint

PAUSES = (2.0, 8.0, 20.0)  # seconds before each new try of a download that broke off

log = structlog.get_logger()


@dataclass(slots=True)
class Imports:
    """The imports under way."""

    storage: Storage
    sources: Sources
    ended: Callable[[Template, str], None]  # with the reason if it failed
    progressed: Callable[[Template], None]
    percent: dict[str, int] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def begin(self, template: Template) -> None:
        if template.id not in self._tasks:
            self.percent[template.id] = 0
            self._tasks[template.id] = asyncio.create_task(self._import(template), name=f"import {template.id}")

    async def stop(self, id_: str) -> None:
        task = self._tasks.get(id_)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        for id_ in list(self._tasks):
            await self.stop(id_)

    async def _import(self, template: Template) -> None:
        part = self.storage.place(template.pool, template.id)
        reason = ""
        try:
            await self._gather(template, part)
            format_, _ = await image.verify(part)
            await asyncio.to_thread(self.storage.settle, template.pool, template.id, format_)
            crashpoint.reach("kaktus.template.imported")
            log.info("template.imported", id=template.id, format=format_)
        except GivenUp as why:
            reason = str(why)
        except OSError as why:
            reason = f"{part} can't be written: {why.strerror}"
        finally:
            part.unlink(missing_ok=True)
            del self._tasks[template.id], self.percent[template.id]
        if reason:
            log.warning("template.failed", id=template.id, reason=reason)
        self.ended(template, reason)

    async def _gather(self, template: Template, part: Path) -> None:
        """Brings its bytes, as they were promised."""
        for pause in (*PAUSES, None):
            try:
                found = await self._copy(template, part)
                break
            except BrokenOff as why:
                if pause is None:
                    raise GivenUp(f"{why}; tried {len(PAUSES) + 1} times") from why
                log.info("template.broken_off", id=template.id, reason=str(why))
                await asyncio.sleep(pause)
        if found != template.sha256:
            raise GivenUp(f"the source holds something else: its SHA-256 is {found}, not {template.sha256}")

    async def _copy(self, template: Template, part: Path) -> str:
        """Returns the checksum of what came."""
        digest = hashlib.sha256()
        came = 0

        def take(data: bytes, file: BinaryIO) -> None:
            digest.update(data)
            file.write(data)

        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            async with contextlib.aclosing(self.sources.read(template.source)) as parts:
                async for data, size in parts:
                    await asyncio.to_thread(take, data, file)
                    came += len(data)
                    self._tell(template, came * 100 // size if size else 0)
        return digest.hexdigest()

    def _tell(self, template: Template, percent: int) -> None:
        percent = min(percent, 99)  # the checks are still to come
        if percent != self.percent[template.id]:
            self.percent[template.id] = percent
            self.progressed(template)
