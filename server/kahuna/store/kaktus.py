"""Hosts of a zone; an agent belongs to one at most."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Kaktus(Resource, table=True):
    """Hosts of a zone; an agent belongs to one at most."""

    zone_id: str = Field(foreign_key="zone.id", index=True)
    name: str
    agent_id: str | None = Field(default=None, foreign_key="agent.id")

    __table_args__ = (
        unique_among_the_living("zone_id", "name"),
        unique_among_the_living("agent_id"),
    )
