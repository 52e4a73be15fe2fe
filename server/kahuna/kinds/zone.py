"""Zones: parts of a region with power, cooling and uplink of their own."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_unless_deleted


class Zone(Resource, table=True):
    """Zones of a region."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    __table_args__ = (unique_unless_deleted("region_id", "name"),)
    informs = ("Kaktus(zone).agent",)
