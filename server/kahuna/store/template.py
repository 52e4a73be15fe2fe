"""Templates of a pool."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Template(Resource, table=True):
    """Templates of a pool."""

    storage_pool_id: str = Field(foreign_key="storagepool.id", index=True)
    name: str

    __table_args__ = (unique_among_the_living("storage_pool_id", "name"),)
