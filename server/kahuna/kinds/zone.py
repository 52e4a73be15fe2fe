"""Zones: parts of a region with power, cooling and uplink of their own."""

from sqlmodel import Field

from kahuna.store.resource import Resource


class Zone(Resource, table=True):
    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    informs = ("Kaktus(zone).agent",)
