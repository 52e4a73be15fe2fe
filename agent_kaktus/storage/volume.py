"""Volumes: the disks of instances."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent_kaktus.actual import DiskSource, Image
from agent_kaktus.kind import Kind, View
from agent_kaktus.settings import Settings
from agent_kaktus.storage.storage_pool import DISK_SOURCES, StoragePool, rounded_space, why_no_pool, why_pool_unseen
from agent_kaktus.storage.template import Template
from kowa import sizes
from kowa.runtime.desired import Desired, DesiredObject, Identity, MissingReference
from kowa.runtime.verdict import AS_WANTED, GONE, Step, Verdict
from kowa.v2 import volume_pb2

SECTOR = 512  # bytes


@dataclass(frozen=True, slots=True)
class Volume(DesiredObject):
    pool: str
    template: str
    size: int  # bytes, whole sectors

    @property
    def references(self) -> tuple[str, ...]:
        return (self.pool, self.template) if self.template else (self.pool,)


class Volumes(Kind[Volume]):
    message, value = volume_pb2.Volume, Volume

    def parse(self, identity: Identity, sent: volume_pb2.Volume) -> Volume:
        if sent.size <= 0:
            raise ValueError(f"size {sent.size} is not a size")
        return Volume(*identity, sent.storage_pool, sent.template, -(-sent.size // SECTOR) * SECTOR)

    def plan(self, view: View, wanted: Volume) -> Verdict:
        image = view.actual.images.get(wanted.id)
        if wanted.gone:
            return _plan_gone(view, wanted, image)
        if reason := why_no_pool(view, wanted.pool):
            return Verdict(waits=reason)
        if image is None:
            return _plan_new(view, wanted)
        if image.pool != wanted.pool:
            return Verdict(fails=f"its file lies in pool {image.pool}")
        if image.broken:
            return Verdict(fails=image.broken)
        if wanted.id not in view.actual.created:
            return Verdict((Step("record volume", wanted.name, lambda host: host.storage.record(wanted.id)),))
        if image.size > wanted.size:
            has, requested = sizes.in_words(image.size, wanted.size)
            return Verdict(fails=f"it has {has} and never shrinks to {requested}")
        if image.size < wanted.size:
            return Verdict((_grow(view, wanted, image),))
        return AS_WANTED

    def fill_status(self, view: View, wanted: Volume, resource: volume_pb2.Volume) -> None:
        if image := view.actual.images.get(wanted.id):
            resource.status.size, resource.status.allocation = image.size, rounded_space(image.allocation)

    def strangers(self, view: View) -> Iterable[str]:
        known = view.desired.of(Volume).keys() | view.desired.of(Template).keys()
        return [f"file {image.pool}/{image.file}" for id_, image in view.actual.images.items() if id_ not in known]


def source_of(config: Settings, desired: Desired, volume: Volume) -> DiskSource:
    """The disk source of a volume. Raises MissingReference."""
    pool = desired.get(StoragePool, volume.pool, "storage pool")
    if pool.driver not in DISK_SOURCES:
        raise MissingReference(f"storage pool {pool.name}, whose driver this agent does not have")
    return DISK_SOURCES[pool.driver](config, pool.id, volume.id)


def why_no_disk(view: View, wanted: Volume) -> str:
    """What an instance waits for until it can use a volume as a disk; empty if it can now."""
    image = view.actual.images.get(wanted.id)
    if image is None or image.broken or image.pool != wanted.pool or wanted.id not in view.actual.created:
        verdict = Volumes().plan(view, wanted)
        return f"volume {wanted.name}" + (f", which failed: {verdict.fails}" if verdict.fails else "")
    return ""


def _plan_new(view: View, wanted: Volume) -> Verdict:
    if wanted.id in view.actual.created:
        source = source_of(view.config, view.desired, wanted)
        reason = f"its {source} is missing and never made anew; restore it or delete the volume"
        return Verdict(fails=reason, is_missing=True)
    if not wanted.template:
        return Verdict((_create(wanted, None),))
    template = view.desired.of(Template).get(wanted.template)
    if template is None or template.gone:
        return Verdict(waits=f"template {wanted.template}")
    image = view.actual.images.get(template.id)
    if image is None:
        reason = view.notes.why_given_up(template)
        return Verdict(waits=f"template {template.name}" + (f", which failed: {reason}" if reason else ""))
    if image.pool != wanted.pool:
        return Verdict(fails=f"template {template.name} lies in another pool")
    if image.broken:
        return Verdict(fails=f"template {template.name}: {image.broken}")
    if image.size > wanted.size:
        needs, has = sizes.in_words(image.size, wanted.size)
        return Verdict(fails=f"template {template.name} needs {needs}, the volume has {has}; make it larger")
    return Verdict((_create(wanted, image),))


def _plan_gone(view: View, wanted: Volume, image: Image | None) -> Verdict:
    if image is None:
        if reason := why_pool_unseen(view, wanted.pool):
            return Verdict(waits=reason)
        return Verdict((_remove(wanted, wanted.pool),)) if wanted.id in view.actual.created else GONE
    if image.pool != wanted.pool:
        return Verdict(fails=f"its file lies in pool {image.pool}")
    if user := view.actual.disk_user(image.disk_key):
        return Verdict(waits=f"domain {user.name}, whose disk it is")
    return Verdict((_remove(wanted, image.pool),))


def _create(wanted: Volume, backing: Image | None) -> Step:
    arguments = (wanted.pool, wanted.id, wanted.size, backing)
    return Step("create volume", wanted.name, lambda host: host.storage.create_volume(*arguments))


def _grow(view: View, wanted: Volume, image: Image) -> Step:
    user = view.actual.disk_user(image.disk_key)
    if user and user.is_on:
        arguments = (user.id, image.disk_key, wanted.size)
        return Step("grow volume", f"{wanted.name} live", lambda host: host.hypervisor.resize(*arguments))
    # Not while its instance is being started, which would open it meanwhile.
    arguments_at_rest = (wanted.pool, wanted.id, wanted.size)
    return Step("grow volume", wanted.name, lambda host: host.storage.grow(*arguments_at_rest), is_exclusive=True)


def _remove(wanted: Volume, pool: str) -> Step:
    return Step("remove volume", wanted.name, lambda host: host.storage.remove(pool, wanted.id))
