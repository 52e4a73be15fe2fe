"""Regions: physical locations, each autonomous."""

from kahuna.store.resource import Resource


class Region(Resource, table=True):
    name: str

    informs = ("Zone(region).Kaktus(zone).agent", "Kiwi(region).members.agent")
