"""Machines; the sums of a host are taken over these."""

from sqlalchemy import BigInteger
from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Instance(Resource, table=True):
    """Machines; the sums of a host are taken over these."""

    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    zone_id: str = Field(foreign_key="zone.id", index=True)
    kaktus_id: str | None = Field(default=None, foreign_key="kaktus.id", index=True)
    vcpus: int
    memory: int = Field(sa_type=BigInteger)

    __table_args__ = (unique_among_the_living("project_id", "name"),)
