"""A pool that is a directory: qcow2 files named by ids; templates are backing files that volumes share.

That a pool or a volume was created is recorded outside the pools, in the agent's state directory: an empty mount point
is a missing pool, and a missing file a missing disk. Neither is ever created again.
"""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from agent_kaktus import names
from agent_kaktus.actual import DiskSource, Image, PoolSpace
from agent_kaktus.settings import Settings
from agent_kaktus.storage import image
from kowa import files
from kowa.runtime.calls import Calls
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.errors import StepFailed
from kowa.runtime.tasks import in_thread

MARKER = ".kowa-pool"  # the file that distinguishes a pool from an empty mount point
VOLUME_MODE = 0o600  # libvirt hands it to the user QEMU runs as
TEMPLATE_MODE = 0o644  # shared by the instances
_POOL_MODE = 0o711  # passable for QEMU
OBSERVE_TIMEOUT_S = 3.0  # for a pool to be listed
_FORMATS = ("qcow2", "raw")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StorageState:
    """The pools and images that a driver finds."""

    pools: Mapping[str, PoolSpace]
    images: Mapping[str, Image]
    created: frozenset[str]  # ids of pools and volumes that were created once


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool's space and images."""

    id: str
    space: PoolSpace
    images: Mapping[str, Image]


def disk_source(config: Settings, pool: str, volume: str) -> DiskSource:
    """The source of a volume's disk, for libvirt."""
    return DiskSource("file", "qcow2", (("file", str(config.pools / pool / f"{volume}.qcow2")),))


class DirDriver:
    """All dir pools of this host. Each method may be repeated; all raise StepFailed or OSError with the reason."""

    def __init__(self, config: Settings, created: Path) -> None:
        """`created` is a directory of the agent with a file for each pool and volume that was created."""
        self._pools = config.pools
        self._created = created
        self._calls = Calls("the pool")

    async def observe(self) -> StorageState:
        """Observes all pools at the same time. One that does not answer is not available, but others are."""
        pools: dict[str, PoolSpace] = {}
        images: dict[str, Image] = {}
        ids, created = await self._list()
        for found in await asyncio.gather(*(self._observe_pool(id_) for id_ in ids)):
            if found is not None:
                pools[found.id] = found.space
                images |= found.images
        return StorageState(pools, images, created)

    @in_thread
    def _list(self) -> tuple[list[str], frozenset[str]]:
        """The ids of the pools' directories, and of all that was created."""
        self._created.mkdir(mode=0o700, parents=True, exist_ok=True)
        listed = [path.name for path in self._pools.iterdir()] if self._pools.is_dir() else []
        return list(filter(names.is_id, listed)), frozenset(path.name for path in self._created.iterdir())

    async def _observe_pool(self, id_: str) -> "PoolState | None":
        try:
            return await self._calls.run(id_, partial(self._look_into, id_), OBSERVE_TIMEOUT_S)
        except (OSError, StepFailed) as error:
            log.warning("pool.unreadable", id=id_, reason=str(error))
            return None

    @in_thread
    def _look_into(self, id_: str) -> "PoolState | None":
        directory = self._pools / id_
        if not (directory / MARKER).exists():
            return None
        return PoolState(id_, self.space(id_), {each.id: each for each in _images(directory)})

    @in_thread
    def create_pool(self, pool: str) -> None:
        directory = self._pools / pool
        directory.mkdir(mode=_POOL_MODE, parents=True, exist_ok=True)
        directory.chmod(_POOL_MODE)
        files.write(directory / MARKER, f"{pool}\n".encode(), mode=0o644)
        files.sync(self._pools)
        crash_point("kaktus.pool.marked")
        files.write(self._created / pool, b"", mode=0o600)

    @in_thread
    def remove_pool(self, pool: str) -> None:
        """Removes a pool if it is empty. The directory of a mount point stays."""
        directory = self._pools / pool
        self.clean([pool])  # it may have been unavailable when the agent started
        try:
            left = [path.name for path in directory.iterdir() if path.name != MARKER and not _is_of_file_system(path)]
            if left:
                raise StepFailed(f"{directory} contains files that are not ours: {', '.join(sorted(left)[:3])}")
            (directory / MARKER).unlink(missing_ok=True)
            directory.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                raise
        self._forget(pool)

    async def create_volume(self, pool: str, volume: str, size: int, backing: Image | None) -> None:
        path = self._volume(pool, volume)
        draft = files.draft_of(path)
        if not path.exists():
            draft.unlink(missing_ok=True)
            await image.create(draft, size, backing)
            draft.chmod(VOLUME_MODE)
            crash_point("kaktus.volume.written")
            await in_thread(files.publish_new)(draft, path)
            crash_point("kaktus.volume.named")
        await self.record(volume)

    @in_thread
    def record(self, volume: str) -> None:
        """Records that a volume was created."""
        files.write(self._created / volume, b"", mode=0o600)

    async def grow(self, pool: str, volume: str, size: int) -> None:
        """Grows a volume that no domain has open."""
        path = self._volume(pool, volume)
        await image.resize(path, size)
        await in_thread(files.sync)(path)

    @in_thread
    def remove(self, pool: str, id_: str) -> None:
        """Removes a volume or a template, and the record of it."""
        for format_ in _FORMATS:
            path = self._pools / pool / f"{id_}.{format_}"
            path.unlink(missing_ok=True)
            files.draft_of(path).unlink(missing_ok=True)
        if (self._pools / pool).is_dir():
            files.sync(self._pools / pool)
        crash_point("kaktus.image.unlinked")
        self._forget(id_)

    def contains(self, pool: str, id_: str) -> bool:
        """Whether a pool has a volume or a template under its final name."""
        return any((self._pools / pool / f"{id_}.{format_}").exists() for format_ in _FORMATS)

    def space(self, pool: str) -> PoolSpace:
        space = os.statvfs(self._pools / pool)
        return PoolSpace(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)

    def staging_file(self, pool: str, template: str) -> Path:
        """The file that a template's bytes are written to until it is complete."""
        return files.draft_of(self._pools / pool / template)

    def add_template(self, pool: str, template: str, format_: str) -> None:
        """Renames the staging file to a template. Raises FileExistsError when that exists."""
        draft = self.staging_file(pool, template)
        draft.chmod(TEMPLATE_MODE)
        files.publish_new(draft, self._pools / pool / f"{template}.{format_}")

    def clean(self, pools: Iterable[str]) -> None:
        """Removes unfinished files of earlier runs that were killed."""
        for pool in pools:
            try:
                for path in (self._pools / pool).glob(f"*{files.DRAFT_SUFFIX}"):
                    if names.is_id(path.name.split(".", 1)[0]):
                        path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("pool.not_cleaned", id=pool, reason=str(error))

    def _volume(self, pool: str, volume: str) -> Path:
        return self._pools / pool / f"{volume}.qcow2"

    def _forget(self, id_: str) -> None:
        (self._created / id_).unlink(missing_ok=True)
        files.draft_of(self._created / id_).unlink(missing_ok=True)
        files.sync(self._created)


def _images(directory: Path) -> Iterator[Image]:
    for path in directory.iterdir():
        if names.is_id(path.stem) and path.suffix[1:] in _FORMATS:
            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                yield _image(path)


def _image(path: Path) -> Image:
    """Examines an image. A damaged one is returned as broken, so that others are found. Raises FileNotFoundError."""
    found = Image(path.stem, path.parent.name, path.suffix[1:], 0, disk_key=str(path))
    try:
        status = path.stat()
        found = replace(found, allocation=status.st_blocks * 512)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise image.BadImage("is not a file")
        if found.format == "raw":
            return replace(found, size=status.st_size)
        header = image.read_header(path)
        return replace(found, size=header.size, backing=header.backing)
    except image.BadImage as error:
        return replace(found, broken=f"its file {path} {error}")
    except FileNotFoundError:
        raise
    except OSError as error:
        return replace(found, broken=f"its file {path} can't be read: {error.strerror}")


def _is_of_file_system(path: Path) -> bool:
    return path.name == "lost+found" and not any(path.iterdir())
