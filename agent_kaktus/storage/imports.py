"""Imports of templates: each a task of its own, so that a long download holds up no instance."""

import asyncio
import contextlib
import errno
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from agent_kaktus.actual import PoolSpace
from agent_kaktus.errors import PermanentFailure, StepFailed, TransferInterrupted
from agent_kaktus.storage import image
from agent_kaktus.storage.dir import DirDriver
from agent_kaktus.storage.source import CHUNK_BYTES, Sources
from agent_kaktus.storage.template import Template
from kowa.backoff import delay
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.tasks import cancel

MAX_PARALLEL = 2  # imports; others wait
ATTEMPTS = 4  # of a download that breaks off
FIRST_RETRY_S, LONGEST_RETRY_S, RETRY_FACTOR = 2.0, 20.0, 4.0
CHUNK_TIMEOUT_S = 30.0  # for each chunk of CHUNK_BYTES bytes
IMPORT_TIMEOUT_S = 6 * 3600.0  # for all of it
MAX_SOURCE_BYTES = 1 << 40
# Of a pool's capacity one part in RESERVED_SHARE stays free, if that is not more than MAX_RESERVED_BYTES: instances
# write too.
RESERVED_SHARE, MAX_RESERVED_BYTES = 20, 256 << 20
NO_ROOM_RETRY_S = 60.0  # until an import that had no room is begun anew, if there is some then

log = structlog.get_logger()


@dataclass(slots=True)
class RoomWait:
    """An import that waits until its pool has room."""

    size: int  # the least it takes
    until: float
    reason: str


@dataclass(slots=True)
class Imports:
    """The imports under way."""

    storage: DirDriver
    sources: Sources
    ended: Callable[[Template, str], None]  # called with the reason if it failed, else with an empty one
    progressed: Callable[[Template], None]
    clock: Callable[[], float] = time.monotonic
    percent: dict[str, int] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _waits: dict[tuple[str, int], RoomWait] = field(default_factory=dict)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PARALLEL))

    async def begin(self, template: Template) -> None:
        """Begins one that is not there or under way. Raises StepFailed or OSError while its pool has no room."""
        if template.id in self._tasks or self.storage.holds(template.pool, template.id):
            return
        if wait := self._waits.get((template.id, template.generation)):
            if self.clock() < wait.until:
                raise StepFailed(wait.reason)
            _check_room(self.storage.space(template.pool), wait.size)
        self.percent[template.id] = 0
        self._tasks[template.id] = asyncio.create_task(self._import(template), name=f"import {template.id}")

    async def stop(self, id_: str) -> None:
        if task := self._tasks.get(id_):
            await cancel(task)

    async def close(self) -> None:
        await cancel(*self._tasks.values())

    async def _import(self, template: Template) -> None:
        part = self.storage.staging_file(template.pool, template.id)
        reason = ""
        try:
            async with self._gate:
                self._waits.pop((template.id, template.generation), None)
                await self._import_to(template, part)
        except PermanentFailure as why:
            reason = str(why)
        except OSError as why:
            if why.errno == errno.ENOSPC:
                self._wait_for_room(template, part, str(why.strerror))
            else:
                reason = f"{part} can't be written: {why.strerror}"
        except Exception as why:
            # The edge: whatever goes wrong, the import ends and says so.
            log.exception("template.crashed", id=template.id)
            reason = f"the agent failed on it, its log says where: {type(why).__name__}: {why}"
        finally:
            del self._tasks[template.id], self.percent[template.id]
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        if reason:
            log.warning("template.failed", id=template.id, reason=reason)
        self.ended(template, reason)

    async def _import_to(self, template: Template, part: Path) -> None:
        try:
            async with asyncio.timeout(IMPORT_TIMEOUT_S):
                await self._download(template, part)
        except TimeoutError as why:
            raise PermanentFailure(f"it took longer than {IMPORT_TIMEOUT_S / 3600:.0f} hours") from why
        format_ = await image.verify(part)
        with contextlib.suppress(FileExistsError):  # somebody has put it there meanwhile, and it stays
            await asyncio.to_thread(self.storage.add_template, template.pool, template.id, format_)
        crash_point("kaktus.template.imported")
        log.info("template.imported", id=template.id, format=format_)

    async def _download(self, template: Template, part: Path) -> None:
        """Fetches its bytes and compares their checksum."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = await self._copy(template, part)
                break
            except TransferInterrupted as why:
                if attempt == ATTEMPTS:
                    raise PermanentFailure(f"{why}; tried {ATTEMPTS} times") from why
                log.info("template.interrupted", id=template.id, reason=str(why))
                await asyncio.sleep(delay(attempt, FIRST_RETRY_S, LONGEST_RETRY_S, RETRY_FACTOR))
        if found != template.sha256:
            raise PermanentFailure(f"the source holds something else: its SHA-256 is {found}, not {template.sha256}")

    async def _copy(self, template: Template, part: Path) -> str:
        """Returns the checksum of what was received."""
        digest = hashlib.sha256()
        received = total = 0

        def write(chunk: bytes) -> None:
            _check_room(self.storage.space(template.pool), max(total - received, len(chunk)))
            digest.update(chunk)
            file.write(chunk)

        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            async with contextlib.aclosing(self.sources.read(template.source)) as chunks:
                while chunk := await _next(chunks):
                    data, total = chunk
                    if max(total, received + len(data)) > MAX_SOURCE_BYTES:
                        raise PermanentFailure(f"the source holds more than {MAX_SOURCE_BYTES >> 30} GiB")
                    await asyncio.to_thread(write, data)
                    received += len(data)
                    self._note_progress(template, received * 100 // total if total else 0)
        return digest.hexdigest()

    def _wait_for_room(self, template: Template, part: Path, reason: str) -> None:
        """Begun again later: that the pool is full is no fault of the template."""
        log.warning("template.no_room", id=template.id, reason=reason)
        size = CHUNK_BYTES
        with contextlib.suppress(OSError):
            size += part.stat().st_size
        until = self.clock() + NO_ROOM_RETRY_S
        self._waits[template.id, template.generation] = RoomWait(size, until, f"{part.parent}: {reason}")

    def _note_progress(self, template: Template, percent: int) -> None:
        percent = min(percent, 99)  # the checks are still to come
        if percent != self.percent[template.id]:
            self.percent[template.id] = percent
            self.progressed(template)


async def _next(chunks: AsyncGenerator[tuple[bytes, int]]) -> tuple[bytes, int] | None:
    """The next chunk of a source; None at its end. Raises TransferInterrupted when it takes too long."""
    try:
        async with asyncio.timeout(CHUNK_TIMEOUT_S):
            return await anext(chunks)
    except StopAsyncIteration:
        return None
    except TimeoutError as why:
        reason = f"the source takes longer than {CHUNK_TIMEOUT_S:.0f} s for {CHUNK_BYTES >> 10} KiB"
        raise TransferInterrupted(reason) from why


def _check_room(space: PoolSpace, more: int) -> None:
    """Raises OSError when so many more bytes would leave too few for the instances."""
    free, kept = space.available, min(space.capacity // RESERVED_SHARE, MAX_RESERVED_BYTES)
    if free - more < kept:
        reason = f"{free >> 20} MiB are free, {kept >> 20} of them kept for instances, {more >> 20} more are needed"
        raise OSError(errno.ENOSPC, f"no room: {reason}")
