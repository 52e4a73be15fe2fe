"""Storage pools: places for templates and volumes."""

from sqlmodel import Field

from kahuna.domain.errors import invalid
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Lock, Resource
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2, storage_pool_pb2, zone_pb2


class StoragePool(Resource, table=True):
    region_id: str = Field(foreign_key="region.id", index=True)
    name: str
    kaktus_id: str | None = Field(default=None, foreign_key="kaktus.id", index=True)

    lock_by_reference = Lock.EXCLUSIVE
    reaches = ("kaktus.agent",)


class StoragePools(Kind[storage_pool_pb2.StoragePool], table=StoragePool):
    def before_create(self, tx: Transaction, resource: storage_pool_pb2.StoragePool) -> None:
        """Requires the host of a directory, which must be in the pool's region."""
        if not resource.kaktus:
            raise invalid("kaktus", "is required for STORAGE_DRIVER_DIR: the host whose directory it is")
        host = tx.one(kaktus_pb2.Kaktus, resource.kaktus)
        if tx.one(zone_pb2.Zone, host.zone).region != resource.region:
            raise invalid("kaktus", f"host {host.name} stands in another region than the pool")
