"""Zones of a region."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Zone(Resource, table=True):
    """Zones of a region."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    __table_args__ = (unique_among_the_living("region_id", "name"),)
