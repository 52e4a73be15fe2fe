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

from agent_kaktus import ids
from agent_kaktus.actual import Image, PoolSeen
from agent_kaktus.desired import Volume
from agent_kaktus.failures import StepFailed
from agent_kaktus.storage import image
from kowa import files
from kowa.runtime import crashpoint

MARK = ".kowa-pool"
VOLUME_MODE = 0o600  # libvirt hands it to the user QEMU runs as
TEMPLATE_MODE = 0o644  # shared by the machines
_POOL_MODE = 0o711  # passable for QEMU
_FORMATS = ("qcow2", "raw")

log = structlog.get_logger()


class DirPools:
    """All dir pools of this host."""

    def __init__(self, pools: Path, made: Path) -> None:
        self._pools = pools
        self._made = made

    def look(self) -> tuple[dict[str, PoolSeen], dict[str, Image], frozenset[str]]:
        """Pools, images by id, and what was made once."""
        self._made.mkdir(mode=0o700, parents=True, exist_ok=True)
        pools: dict[str, PoolSeen] = {}
        images: dict[str, Image] = {}
        for directory in ids.named_by_id(self._pools):
            try:
                if (directory / MARK).exists():
                    space, found = _space(directory), {each.id: each for each in _images(directory)}
                    pools[directory.name] = space
                    images |= found
            except OSError as why:  # it is away, and the others are not
                log.warning("pool.unreadable", id=directory.name, reason=str(why))
        return pools, images, frozenset(path.name for path in self._made.iterdir())

    def make_pool(self, pool: str) -> None:
        directory = self._pools / pool
        directory.mkdir(mode=_POOL_MODE, parents=True, exist_ok=True)
        directory.chmod(_POOL_MODE)
        files.write(directory / MARK, f"{pool}\n".encode(), mode=0o644)
        files.sync(self._pools)
        crashpoint.reach("kaktus.pool.marked")
        self._remember(pool)

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

    async def create(self, volume: Volume, backing: Image | None) -> None:
        path = self._path(volume)
        new = files.draft_of(path)
        if not path.exists():
            new.unlink(missing_ok=True)
            if backing:
                await image.overlay(new, volume.size, backing.file, backing.format)
            else:
                await image.create(new, volume.size)
            new.chmod(VOLUME_MODE)
            crashpoint.reach("kaktus.volume.written")
            await asyncio.to_thread(files.publish_new, new, path)
            crashpoint.reach("kaktus.volume.named")
        self.record(volume.id)

    def record(self, volume: str) -> None:
        self._remember(volume)

    async def grow(self, volume: Volume) -> None:
        """While no domain has it open."""
        path = self._path(volume)
        await image.resize(path, volume.size)
        await asyncio.to_thread(files.sync, path)

    def remove(self, id_: str, pool: str) -> None:
        """A volume's or a template's file, and the memory of it."""
        for format_ in _FORMATS:
            path = self._pools / pool / f"{id_}.{format_}"
            path.unlink(missing_ok=True)
            files.draft_of(path).unlink(missing_ok=True)
        if (self._pools / pool).is_dir():
            files.sync(self._pools / pool)
        crashpoint.reach("kaktus.image.unlinked")
        self._forget(id_)

    def holds(self, id_: str, pool: str) -> bool:
        return any((self._pools / pool / f"{id_}.{format_}").exists() for format_ in _FORMATS)

    def place(self, pool: str, template: str) -> Path:
        """Where a template's bytes are gathered before anybody sees it."""
        return files.draft_of(self._pools / pool / template)

    def settle(self, pool: str, template: str, format_: str) -> None:
        new = self.place(pool, template)
        new.chmod(TEMPLATE_MODE)
        files.publish_new(new, self._pools / pool / f"{template}.{format_}")

    def clean(self, pools: Iterable[str]) -> None:
        """Takes away what runs that were killed had not finished."""
        for pool in pools:
            try:
                for path in (self._pools / pool).glob(f"*{files.DRAFT_SUFFIX}"):
                    if ids.is_id(path.name.split(".", 1)[0]):
                        path.unlink(missing_ok=True)
            except OSError as why:
                log.warning("pool.not_cleaned", id=pool, reason=str(why))

    def _path(self, volume: Volume) -> Path:
        return self._pools / volume.pool / f"{volume.id}.qcow2"

    def _remember(self, id_: str) -> None:
        files.write(self._made / id_, b"", mode=0o600)

    def _forget(self, id_: str) -> None:
        (self._made / id_).unlink(missing_ok=True)
        files.sync(self._made)


def _space(directory: Path) -> PoolSeen:
    space = os.statvfs(directory)
    return PoolSeen(space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)


def _images(directory: Path) -> Iterable[Image]:
    for path in directory.iterdir():
        if ids.is_id(path.stem) and path.suffix[1:] in _FORMATS:
            try:
                yield _image(path)
            except FileNotFoundError:
                continue  # it went while we looked


def _image(path: Path) -> Image:
    """One that makes no sense is broken, and keeps nobody from seeing the others."""
    id_, pool, format_, allocation = path.stem, path.parent.name, path.suffix[1:], 0
    try:
        found = path.stat()
        allocation = found.st_blocks * 512
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise image.NoImage("is no file")
        if format_ == "raw":
            return Image(id_, pool, format_, found.st_size, allocation)
        header = image.read_header(path)
    except FileNotFoundError:
        raise
    except image.NoImage as what:
        return Image(id_, pool, format_, 0, allocation, broken=f"its file {path} {what}")
    except OSError as why:
        return Image(id_, pool, format_, 0, allocation, broken=f"its file {path} can't be read: {why.strerror}")
    return Image(id_, pool, format_, header.size, allocation, header.backing)


def _is_of_file_system(path: Path) -> bool:
    return path.name == "lost+found" and not any(path.iterdir())
