"""Regions: physical locations, each autonomous."""

from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource, unique_unless_deleted
from kowa.v2 import region_pb2


class Region(Resource, table=True):
    """Regions."""

    name: str

    __table_args__ = (unique_unless_deleted("name"),)


class Regions(Kind[region_pb2.Region]):
    """Regions: the standard methods, nothing else."""

    table = Region
    informs = ("Zone(region).Kaktus(zone).agent", "Kiwi(region).members.agent")
