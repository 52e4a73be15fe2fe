"""A pool that is a directory: qcow2 files named by ids, templates shared by the volumes that stand on them.

Whether a pool or a volume was ever made is remembered beside the pools, in the agent's own state: an empty mount point
is a missing pool, and a missing file a missing disk. Neither is ever made anew.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from agent_kaktus import names
from agent_kaktus.actual import Image, PoolSpace
from agent_kaktus.config import HostConfig
from agent_kaktus.disk import DiskSource
from agent_kaktus.errors import StepFailed
from agent_kaktus.storage import image
from agent_kaktus.storage.driver import StorageState
from kowa import files
from kowa.runtime import crashpoint
from kowa.runtime.tasks import in_thread

MARK = ".kowa-pool"
VOLUME_MODE = 0o600  # libvirt hands it to the user QEMU runs as
TEMPLATE_MODE = 0o644  # shared by the instances
_POOL_MODE = 0o711  # passable for QEMU
_FORMATS = ("qcow2", "raw")

log = structlog.get_logger()


class DirLayout:
    """Where dir pools of this host lie."""

    def __init__(self, config: HostConfig) -> None:
        self._pools = config.pools

    def pool(self, pool: str) -> str:
        return f"directory {self._pools / pool}"

    def volume(self, pool: str, volume: str) -> DiskSource:
        return _source(self._pools / pool / f"{volume}.qcow2")


class DirDriver:
    """All dir pools of this host."""

    def __init__(self, config: HostConfig, created: Path) -> None:
        """`created` is a directory of the agent's own that remembers what was there once."""
        self._pools = config.pools
        self._created = created

    async def create_volume(self, pool: str, volume: str, size: int, backing: Image | None) -> None:
        path = self._path(pool, volume)
        draft = files.draft_of(path)
        if not path.exists():
            draft.unlink(missing_ok=True)
            if backing:
                await image.overlay(draft, size, backing.file, backing.format)
            else:
                await image.create(draft, size)
            draft.chmod(VOLUME_MODE)
            crashpoint.reach("kaktus.volume.written")
            await asyncio.to_thread(files.publish_new, draft, path)
            crashpoint.reach("kaktus.volume.named")
        await self.record(volume)

    @in_thread
    def record(self, volume: str) -> None:
        self._remember(volume)

    async def grow(self, pool: str, volume: str, size: int) -> None:
        """Only while no domain has it open."""
        path = self._path(pool, volume)
        await image.resize(path, size)
        await asyncio.to_thread(files.sync, path)

    def holds(self, pool: str, id_: str) -> bool:
        return any((self._pools / pool / f"{id_}.{format_}").exists() for format_ in _FORMATS)

    def staging_file(self, pool: str, template: str) -> Path:
        return files.draft_of(self._pools / pool / template)

    def space(self, pool: str) -> PoolSpace:
        return _space(self._pools / pool)

    def add_template(self, pool: str, template: str, format_: str) -> None:
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

    @in_thread
    def look(self) -> StorageState:
        self._created.mkdir(mode=0o700, parents=True, exist_ok=True)
        pools: dict[str, PoolSpace] = {}
        images: dict[str, Image] = {}
        for directory in names.named_by_id(self._pools):
            try:
                if (directory / MARK).exists():
                    space, found = _space(directory), {each.id: each for each in _images(directory)}
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
        files.write(directory / MARK, f"{pool}\n".encode(), mode=0o644)
        files.sync(self._pools)
        crashpoint.reach("kaktus.pool.marked")
        self._remember(pool)

    @in_thread
    def remove_pool(self, pool: str) -> None:
        """Only an empty one goes; of a mount point the directory stays."""
        directory = self._pools / pool
        self.clean([pool])  # it may have been away when the agent started
        try:
            left = [path.name for path in directory.iterdir() if path.name != MARK and not _is_of_file_system(path)]
            if left:
                raise StepFailed(f"{directory} holds what is not ours: {', '.join(sorted(left)[:3])}")
            (directory / MARK).unlink(missing_ok=True)
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError as why:
            if why.errno != errno.EBUSY:
                raise
        self._forget(pool)

    @in_thread
    def remove(self, pool: str, id_: str) -> None:
        """A volume's or a template's file, and the memory of it."""
        for format_ in _FORMATS:
            path = self._pools / pool / f"{id_}.{format_}"
            path.unlink(missing_ok=True)
            files.draft_of(path).unlink(missing_ok=True)
        if (self._pools / pool).is_dir():
            files.sync(self._pools / pool)
        crashpoint.reach("kaktus.image.unlinked")
        self._forget(id_)

    def _path(self, pool: str, volume: str) -> Path:
        return self._pools / pool / f"{volume}.qcow2"

    def _remember(self, id_: str) -> None:
        files.write(self._created / id_, b"", mode=0o600)

    def _forget(self, id_: str) -> None:
        (self._created / id_).unlink(missing_ok=True)
        files.sync(self._created)


def _source(path: Path) -> DiskSource:
    return DiskSource("file", path.suffix[1:], (("file", str(path)),))


def _space(directory: Path) -> PoolSpace:
    space = os.statvfs(directory)
    return PoolSpace(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)


def _images(directory: Path) -> Iterable[Image]:
    for path in directory.iterdir():
        if names.is_id(path.stem) and path.suffix[1:] in _FORMATS:
            try:
                yield _image(path)
            except FileNotFoundError:
                continue  # it went while we looked


def _image(path: Path) -> Image:
    """One that makes no sense is broken, and keeps nobody from seeing the others."""
    id_, pool, format_, allocation, key = path.stem, path.parent.name, path.suffix[1:], 0, _source(path).key
    try:
        found = path.stat()
        allocation = found.st_blocks * 512
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise image.NoImage("is no file")
        if format_ == "raw":
            return Image(id_, pool, format_, found.st_size, allocation, disk_key=key)
        header = image.read_header(path)
    except FileNotFoundError:
        raise
    except image.NoImage as what:
        return Image(id_, pool, format_, 0, allocation, broken=f"its file {path} {what}", disk_key=key)
    except OSError as why:
        broken = f"its file {path} can't be read: {why.strerror}"
        return Image(id_, pool, format_, 0, allocation, broken=broken, disk_key=key)
    return Image(id_, pool, format_, header.size, allocation, header.backing, disk_key=key)


def _is_of_file_system(path: Path) -> bool:
    return path.name == "lost+found" and not any(path.iterdir())
