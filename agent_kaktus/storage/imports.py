"""Imports of templates: each a task of its own, so that a long download delays no instance."""

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
from agent_kaktus.errors import TransferInterrupted
from agent_kaktus.storage import image
from agent_kaktus.storage.dir import DirDriver
from agent_kaktus.storage.source import CHUNK_BYTES, Sources
from agent_kaktus.storage.template import Template
from kowa.backoff import delay
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.errors import PermanentFailure, StepFailed
from kowa.runtime.tasks import cancel, in_thread

MAX_PARALLEL = 2  # imports; others wait
ATTEMPTS = 4  # of a download that breaks off
FIRST_RETRY_S, LONGEST_RETRY_S, RETRY_FACTOR = 2.0, 20.0, 4.0
CHUNK_TIMEOUT_S = 30.0  # for each chunk of CHUNK_BYTES bytes
IMPORT_TIMEOUT_S = 6 * 3600.0  # for a whole import
MAX_SOURCE_BYTES = 1 << 40
# One part in RESERVED_SHARE of a pool's capacity stays free for instances, which write too; MAX_RESERVED_BYTES at most.
RESERVED_SHARE, MAX_RESERVED_BYTES = 20, 256 << 20
NO_SPACE_RETRY_S = 60.0  # until an import that had no space is started again, if there is some then

log = structlog.get_logger()


@dataclass(slots=True)
class SpaceWait:
    """An import that waits until its pool has space."""

    size: int  # the least that it needs
    until: float
    reason: str


@dataclass(slots=True)
class Imports:
    """The running imports."""

    storage: DirDriver
    sources: Sources
    ended: Callable[[Template, str], None]  # called with the reason if it failed, else with an empty one
    progressed: Callable[[Template], None]
    clock: Callable[[], float] = time.monotonic
    percent: dict[str, int] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _waits: dict[tuple[str, int], SpaceWait] = field(default_factory=dict)
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PARALLEL))

    async def start(self, template: Template) -> None:
        """Starts an import that is not running or done. Raises StepFailed or OSError while its pool has no space."""
        if template.id in self._tasks or self.storage.contains(template.pool, template.id):
            return
        if wait := self._waits.get((template.id, template.generation)):
            if self.clock() < wait.until:
                raise StepFailed(wait.reason)
            _check_space(self.storage.space(template.pool), wait.size)
        self.percent[template.id] = 0
        self._tasks[template.id] = asyncio.create_task(self._import(template), name=f"import {template.id}")

    async def stop(self, id_: str) -> None:
        if task := self._tasks.get(id_):
            await cancel(task)

    async def close(self) -> None:
        await cancel(*self._tasks.values())

    async def _import(self, template: Template) -> None:
        staging = self.storage.staging_file(template.pool, template.id)
        reason = ""
        try:
            async with self._gate:
                self._waits.pop((template.id, template.generation), None)
                await self._import_to(template, staging)
        except PermanentFailure as error:
            reason = str(error)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._wait_for_space(template, staging, str(error.strerror))
            else:
                reason = f"{staging} can't be written: {error.strerror}"
        except Exception as error:
            # Error boundary: any error ends the import and is its reason.
            log.exception("template.crashed", id=template.id)
            reason = f"the agent failed on it, its log says where: {type(error).__name__}: {error}"
        finally:
            del self._tasks[template.id], self.percent[template.id]
            with contextlib.suppress(OSError):
                staging.unlink(missing_ok=True)
        if reason:
            log.warning("template.failed", id=template.id, reason=reason)
        self.ended(template, reason)

    async def _import_to(self, template: Template, staging: Path) -> None:
        try:
            async with asyncio.timeout(IMPORT_TIMEOUT_S):
                await self._download(template, staging)
        except TimeoutError as error:
            raise PermanentFailure(f"it took longer than {IMPORT_TIMEOUT_S / 3600:.0f} hours") from error
        format_ = await image.verify(staging)
        with contextlib.suppress(FileExistsError):  # an operator has put a file there meanwhile, which stays
            await in_thread(self.storage.add_template)(template.pool, template.id, format_)
        crash_point("kaktus.template.imported")
        log.info("template.imported", id=template.id, format=format_)

    async def _download(self, template: Template, staging: Path) -> None:
        """Downloads a template, again after an interruption, and compares its checksum."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = await self._copy(template, staging)
                break
            except TransferInterrupted as error:
                if attempt == ATTEMPTS:
                    raise PermanentFailure(f"{error}; tried {ATTEMPTS} times") from error
                log.info("template.interrupted", id=template.id, reason=str(error))
                await asyncio.sleep(delay(attempt, FIRST_RETRY_S, LONGEST_RETRY_S, RETRY_FACTOR))
        if found != template.sha256:
            raise PermanentFailure(f"the source holds something else: its SHA-256 is {found}, not {template.sha256}")

    async def _copy(self, template: Template, staging: Path) -> str:
        """Copies a source to the staging file. Returns the checksum of the received bytes."""
        digest = hashlib.sha256()
        received = total = 0

        def write(chunk: bytes) -> None:
            _check_space(self.storage.space(template.pool), max(total - received, len(chunk)))
            digest.update(chunk)
            file.write(chunk)

        with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            async with contextlib.aclosing(self.sources.read(template.source)) as chunks:
                while chunk := await _next(chunks):
                    data, total = chunk
                    if max(total, received + len(data)) > MAX_SOURCE_BYTES:
                        raise PermanentFailure(f"the source holds more than {MAX_SOURCE_BYTES >> 30} GiB")
                    await in_thread(write)(data)
                    received += len(data)
                    self._note_progress(template, received * 100 // total if total else 0)
        return digest.hexdigest()

    def _wait_for_space(self, template: Template, staging: Path, reason: str) -> None:
        """Notes that the import is to be started again later: a full pool is not an error of the template."""
        log.warning("template.no_room", id=template.id, reason=reason)
        size = CHUNK_BYTES
        with contextlib.suppress(OSError):
            size += staging.stat().st_size
        until = self.clock() + NO_SPACE_RETRY_S
        self._waits[template.id, template.generation] = SpaceWait(size, until, f"{staging.parent}: {reason}")

    def _note_progress(self, template: Template, percent: int) -> None:
        percent = min(percent, 99)  # the checks follow
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
    except TimeoutError as error:
        reason = f"the source takes longer than {CHUNK_TIMEOUT_S:.0f} s for {CHUNK_BYTES >> 10} KiB"
        raise TransferInterrupted(reason) from error


def _check_space(space: PoolSpace, more: int) -> None:
    """Raises OSError when `more` bytes would leave too few for the instances."""
    free, kept = space.available, min(space.capacity // RESERVED_SHARE, MAX_RESERVED_BYTES)
    if free - more < kept:
        reason = f"{free >> 20} MiB are free, {kept >> 20} of them kept for instances, {more >> 20} more are needed"
        raise OSError(errno.ENOSPC, f"no room: {reason}")
