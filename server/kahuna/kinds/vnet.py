"""Vnets: network segments of a region."""

from sqlmodel import Field

from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource, unique_unless_deleted
from kowa.v2 import vnet_pb2


class Vnet(Resource, table=True):
    """Network segments of a region."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    __table_args__ = (unique_unless_deleted("region_id", "name"),)


class Vnets(Kind[vnet_pb2.Vnet]):
    """Network segments: the standard methods, nothing else."""

    table = Vnet
    reaches = ("region.Zone(region).Kaktus(zone).agent", "region.Kiwi(region).agent")
