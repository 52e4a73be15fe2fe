"""Storage pools of a region; a directory is one host's."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class StoragePool(Resource, table=True):
    """Storage pools of a region; a directory is one host's."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str
    kaktus_id: str | None = Field(default=None, foreign_key="kaktus.id", index=True)

    __table_args__ = (unique_among_the_living("region_id", "name"),)
