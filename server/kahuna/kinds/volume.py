"""Volumes: the disks of a project."""

from sqlalchemy import BigInteger
from sqlmodel import Field, func, select

from kahuna.domain.errors import Refusal, invalid
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Lock, Resource
from kahuna.store.transaction import Transaction
from kowa import sizes
from kowa.v2 import storage_pool_pb2, template_pb2, volume_pb2


class Volume(Resource, table=True):
    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    storage_pool_id: str = Field(foreign_key="storagepool.id", index=True)
    template_id: str | None = Field(default=None, foreign_key="template.id", index=True)
    instance_id: str | None = Field(default=None, foreign_key="instance.id", index=True)
    kompute_id: str | None = Field(default=None, foreign_key="kompute.id", index=True)
    size: int = Field(sa_type=BigInteger)

    lock_by_reference = Lock.EXCLUSIVE
    cleared_with_target = frozenset({"instance"})
    part_of = "Kompute"
    reaches = ("storage_pool.kaktus.agent",)


class Volumes(Kind[volume_pb2.Volume], table=Volume):
    """Checks sizes of disks: they grow, never shrink. A disk belongs to one instance at most."""

    def before_create(self, tx: Transaction, resource: volume_pb2.Volume) -> None:
        """Checks that the pool has enough space, and that the template is in the same pool and not larger."""
        _check_space(tx, resource.storage_pool, resource.size)
        if not resource.template:
            return
        template = tx.one(template_pb2.Template, resource.template)
        if template.storage_pool != resource.storage_pool:
            raise invalid("template", f"template {template.name} lies in another pool; import it into the volume's")
        if resource.size < template.status.size:
            requested, needed = sizes.in_words(resource.size, template.status.size)
            raise invalid("size", f"{requested} is less than the {needed} of template {template.name}")

    def before_update(self, tx: Transaction, before: volume_pb2.Volume, after: volume_pb2.Volume) -> None:
        """Refuses to shrink."""
        if after.size < before.size:
            has, requested = sizes.in_words(before.size, after.size)
            raise invalid("size", f"a volume never shrinks: it has {has}, {requested} asked")
        if after.size > before.size:
            _check_space(tx, after.storage_pool, after.size - before.size)


def _check_space(tx: Transaction, pool_id: str, size: int) -> None:
    """Raises Refusal NO_SPACE unless a pool, which it locks, has so many bytes left with its overcommit.

    Volumes marked for deletion count until they are gone. A pool without a reported capacity is not checked.
    """
    pool = tx.lock(storage_pool_pb2.StoragePool, pool_id)
    promised = int(tx.session.exec(select(func.sum(Volume.size)).where(Volume.storage_pool_id == pool_id)).one() or 0)
    limit = int(pool.status.capacity * pool.overcommit)
    if pool.status.capacity and promised + size > limit:
        free, whole, requested = sizes.in_words(max(limit - promised, 0), limit, size)
        raise Refusal(
            "NO_SPACE",
            f"storage pool {pool.name} has {free} of {whole} left to promise, {requested} asked; ask for less, delete "
            "volumes, or raise the pool's overcommit",
        )
