"""Regions: physical locations, each autonomous."""

from kahuna.store.resource import Resource, unique_unless_deleted


class Region(Resource, table=True):
    """Regions."""

    name: str

    __table_args__ = (unique_unless_deleted("name"),)
    informs = ("Zone(region).Kaktus(zone).agent", "Kiwi(region).members.agent")
