"""Network nodes of a region; an agent belongs to one at most."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Kiwi(Resource, table=True):
    """Network nodes of a region; an agent belongs to one at most."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str
    agent_id: str | None = Field(default=None, foreign_key="agent.id")

    __table_args__ = (
        unique_among_the_living("region_id", "name"),
        unique_among_the_living("agent_id"),
    )
