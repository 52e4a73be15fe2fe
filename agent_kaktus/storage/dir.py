"""A pool that is a directory: qcow2 files named by ids, templates shared by the volumes that stand on them.

Whether a pool or a volume was ever made is recorded beside the pools, in the agent's own state: an empty mount point is
a missing pool, and a missing file a missing disk. Neither is ever made anew.
"""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from agent_kaktus import names
from agent_kaktus.actual import DiskSource, Image, PoolSpace
from agent_kaktus.errors import StepFailed
from agent_kaktus.settings import Settings
from agent_kaktus.storage import image
from kowa import files
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.tasks import in_thread

MARKER = ".kowa-pool"  # the file that tells a pool from an empty mount point
VOLUME_MODE = 0o600  # libvirt hands it to the user QEMU runs as
TEMPLATE_MODE = 0o644  # shared by the instances
_POOL_MODE = 0o711  # passable for QEMU
_FORMATS = ("qcow2", "raw")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StorageState:
    """What a driver sees."""

    pools: Mapping[str, PoolSpace]
    images: Mapping[str, Image]
    created: frozenset[str]  # ids of pools and volumes that were there once


def disk_source(config: Settings, pool: str, volume: str) -> DiskSource:
    """Where a volume is, for libvirt."""
    return DiskSource("file", "qcow2", (("file", str(config.pools / pool / f"{volume}.qcow2")),))


class DirDriver:
    """All dir pools of this host. Each verb may be repeated; all raise StepFailed or OSError with the reason."""

    def __init__(self, config: Settings, created: Path) -> None:
        """`created` is a directory of the agent's own that records what was there once."""
        self._pools = config.pools
        self._created = created

    @in_thread
    def observe(self) -> StorageState:
        self._created.mkdir(mode=0o700, parents=True, exist_ok=True)
        pools: dict[str, PoolSpace] = {}
        images: dict[str, Image] = {}
        for directory in names.named_by_id(self._pools):
            try:
                if (directory / MARKER).exists():
                    space, found = self.space(directory.name), {each.id: each for each in _images(directory)}
                    pools[directory.name] = space
                    images |= found
            except OSError as why:  # it is away, and the others are not
                log.warning("pool.unreadable", id=directory.name, reason=str(why))
        return StorageState(pools, images, frozenset(path.name for path in self._created.iterdir()))

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
        """Only an empty one goes; of a mount point the directory stays."""
        directory = self._pools / pool
        self.clean([pool])  # it may have been away when the agent started
        try:
            left = [path.name for path in directory.iterdir() if path.name != MARKER and not _is_of_file_system(path)]
            if left:
                raise StepFailed(f"{directory} holds what is not ours: {', '.join(sorted(left)[:3])}")
            (directory / MARKER).unlink(missing_ok=True)
            directory.rmdir()
        except OSError as why:
            if why.errno not in (errno.ENOENT, errno.EBUSY):
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
            await asyncio.to_thread(files.publish_new, draft, path)
            crash_point("kaktus.volume.named")
        await self.record(volume)

    @in_thread
    def record(self, volume: str) -> None:
        """Records that it was there once."""
        files.write(self._created / volume, b"", mode=0o600)

    async def grow(self, pool: str, volume: str, size: int) -> None:
        """Only while no domain has it open."""
        path = self._volume(pool, volume)
        await image.resize(path, size)
        await asyncio.to_thread(files.sync, path)

    @in_thread
    def remove(self, pool: str, id_: str) -> None:
        """A volume or a template, and the record of it."""
        for format_ in _FORMATS:
            path = self._pools / pool / f"{id_}.{format_}"
            path.unlink(missing_ok=True)
            files.draft_of(path).unlink(missing_ok=True)
        if (self._pools / pool).is_dir():
            files.sync(self._pools / pool)
        crash_point("kaktus.image.unlinked")
        self._forget(id_)

    def holds(self, pool: str, id_: str) -> bool:
        """Whether a volume or a template is there under its final name."""
        return any((self._pools / pool / f"{id_}.{format_}").exists() for format_ in _FORMATS)

    def space(self, pool: str) -> PoolSpace:
        space = os.statvfs(self._pools / pool)
        return PoolSpace(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)

    def staging_file(self, pool: str, template: str) -> Path:
        """Where a template's bytes are written until it is complete."""
        return files.draft_of(self._pools / pool / template)

    def add_template(self, pool: str, template: str, format_: str) -> None:
        """Makes a template of the staging file. Raises FileExistsError when it is there."""
        draft = self.staging_file(pool, template)
        draft.chmod(TEMPLATE_MODE)
        files.publish_new(draft, self._pools / pool / f"{template}.{format_}")

    def clean(self, pools: Iterable[str]) -> None:
        """Removes what runs that were killed had not finished."""
        for pool in pools:
            try:
                for path in (self._pools / pool).glob(f"*{files.DRAFT_SUFFIX}"):
                    if names.is_id(path.name.split(".", 1)[0]):
                        path.unlink(missing_ok=True)
            except OSError as why:
                log.warning("pool.not_cleaned", id=pool, reason=str(why))

    def _volume(self, pool: str, volume: str) -> Path:
        return self._pools / pool / f"{volume}.qcow2"

    def _forget(self, id_: str) -> None:
        (self._created / id_).unlink(missing_ok=True)
        files.sync(self._created)


def _images(directory: Path) -> Iterator[Image]:
    for path in directory.iterdir():
        if names.is_id(path.stem) and path.suffix[1:] in _FORMATS:
            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                yield _image(path)


def _image(path: Path) -> Image:
    """A damaged one is reported as broken and keeps nobody from seeing the others. Raises FileNotFoundError."""
    found = Image(path.stem, path.parent.name, path.suffix[1:], 0, disk_key=str(path))
    try:
        status = path.stat()
        found = replace(found, allocation=status.st_blocks * 512)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise image.NotAnImage("is no file")
        if found.format == "raw":
            return replace(found, size=status.st_size)
        header = image.read_header(path)
        return replace(found, size=header.size, backing=header.backing)
    except image.NotAnImage as what:
        return replace(found, broken=f"its file {path} {what}")
    except FileNotFoundError:
        raise
    except OSError as why:
        return replace(found, broken=f"its file {path} can't be read: {why.strerror}")


def _is_of_file_system(path: Path) -> bool:
    return path.name == "lost+found" and not any(path.iterdir())
