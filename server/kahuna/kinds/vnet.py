"""Vnets: network segments of a region, or of a project there."""

from sqlmodel import Field

from kahuna.store.resource import Resource


class Vnet(Resource, table=True):
    """Network segments; those without a project belong to the region and may be used by all projects."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str
    project_id: str | None = Field(default=None, foreign_key="project.id", index=True)

    reaches = ("region.Zone(region).Kaktus(zone).agent", "region.Kiwi(region).members.agent")
