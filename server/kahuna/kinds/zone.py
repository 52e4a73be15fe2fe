"""Zones: parts of a region with power, cooling and uplink of their own."""

from sqlmodel import Field

from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource, unique_unless_deleted
from kowa.v2 import zone_pb2


class Zone(Resource, table=True):
    """Zones of a region."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    __table_args__ = (unique_unless_deleted("region_id", "name"),)


class Zones(Kind[zone_pb2.Zone]):
    """Zones: the standard methods, nothing else."""

    table = Zone
    informs = ("Kaktus(zone).agent",)
