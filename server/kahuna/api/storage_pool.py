"""Storage pools."""

from kahuna.api.service import StandardMethods
from kahuna.domain.errors import Refusal, invalid
from kahuna.store.transaction import Transaction
from kowa.v2 import kaktus_pb2, storage_pool_pb2, zone_pb2


class StoragePoolService(StandardMethods):
    """Places for templates and volumes; a directory is one host's."""

    kind = "StoragePool"

    def admit(self, tx: Transaction, resource: storage_pool_pb2.StoragePool) -> None:
        """A directory names its host, which stands in the pool's region."""
        if resource.driver == storage_pool_pb2.STORAGE_DRIVER_RBD:
            raise Refusal("NOT_SERVED", "driver: STORAGE_DRIVER_RBD is not served yet; use STORAGE_DRIVER_DIR")
        if not resource.kaktus:
            raise invalid("kaktus", "is required for STORAGE_DRIVER_DIR: the host whose directory it is")
        host = tx.find("Kaktus", resource.kaktus)
        assert isinstance(host, kaktus_pb2.Kaktus)
        zone = tx.find("Zone", host.zone)
        assert isinstance(zone, zone_pb2.Zone)
        if zone.region != resource.region:
            raise invalid("kaktus", f"host {host.name} stands in another region than the pool")
