"""Storage pools of this host."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent_kaktus.actual import DiskSource
from agent_kaktus.kind import Kind, View
from agent_kaktus.settings import Settings
from agent_kaktus.storage.dir import disk_source
from kowa.runtime.desired import DesiredObject, Identity
from kowa.runtime.verdict import AS_WANTED, GONE, Step, Verdict
from kowa.v2 import storage_pool_pb2

SPACE_UNIT_BYTES = 16 << 20  # space is reported in whole units; else each observation would send a report
# The drivers of this agent, each with the function that gives the disk source of a volume in a pool.
DISK_SOURCES: dict[int, Callable[[Settings, str, str], DiskSource]] = {storage_pool_pb2.STORAGE_DRIVER_DIR: disk_source}


@dataclass(frozen=True, slots=True)
class StoragePool(DesiredObject):
    driver: int


class StoragePools(Kind[StoragePool]):
    message, value = storage_pool_pb2.StoragePool, StoragePool

    def parse(self, identity: Identity, sent: storage_pool_pb2.StoragePool) -> StoragePool:
        return StoragePool(*identity, sent.driver)

    def plan(self, view: View, wanted: StoragePool) -> Verdict:
        if wanted.gone:
            return _plan_gone(view, wanted)
        if wanted.driver not in DISK_SOURCES:
            return Verdict(fails="this agent serves pools in a directory only")
        if wanted.id not in view.actual.created:
            return Verdict((Step("create pool", wanted.name, lambda host: host.storage.create_pool(wanted.id)),))
        if wanted.id in view.actual.pools:
            return AS_WANTED
        reason = f"its directory {view.config.pools / wanted.id} is missing; mount or restore it"
        return Verdict(fails=reason, is_missing=True)

    def fill_status(self, view: View, wanted: StoragePool, resource: storage_pool_pb2.StoragePool) -> None:
        if space := view.actual.pools.get(wanted.id):
            resource.status.capacity, resource.status.available = space.capacity, rounded_space(space.available)

    def strangers(self, view: View) -> Iterable[str]:
        return [f"pool {id_}" for id_ in view.actual.pools.keys() - view.desired.of(StoragePool).keys()]


def rounded_space(size: int) -> int:
    """A number of bytes, rounded down for reports."""
    return size // SPACE_UNIT_BYTES * SPACE_UNIT_BYTES


def why_no_pool(view: View, id_: str) -> str:
    """What to wait for until an image can be created in a pool; empty if that is possible now."""
    pool = view.desired.of(StoragePool).get(id_)
    if pool is None or pool.gone:
        return f"storage pool {id_}"
    return "" if id_ in view.actual.pools and id_ in view.actual.created else f"storage pool {pool.name}"


def why_pool_unseen(view: View, id_: str) -> str:
    """What to wait for while a pool is missing, so that its files can't be seen; empty if it is not missing."""
    is_missing = id_ in view.actual.created and id_ not in view.actual.pools
    return f"storage pool {id_}, which is missing" if is_missing else ""


def _plan_gone(view: View, wanted: StoragePool) -> Verdict:
    images = [image.id for image in view.actual.images.values() if image.pool == wanted.id]
    if images:
        return Verdict(waits=f"{len(images)} images in it: {', '.join(sorted(images)[:3])}")
    imports = sum(template.id in view.actual.importing for template in view.desired.referring(wanted.id))
    if imports:
        return Verdict(waits=f"{imports} imports into it")
    if wanted.id not in view.actual.pools and wanted.id not in view.actual.created:
        return GONE
    return Verdict((Step("remove pool", wanted.name, lambda host: host.storage.remove_pool(wanted.id)),))
