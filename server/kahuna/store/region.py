"""Regions."""

from kahuna.store.resource import Resource, unique_among_the_living


class Region(Resource, table=True):
    """Regions."""

    name: str

    __table_args__ = (unique_among_the_living("name"),)
