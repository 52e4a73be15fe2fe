"""Ranges of addresses on a segment."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Subnet(Resource, table=True):
    """Ranges of addresses on a segment."""

    vnet_id: str = Field(foreign_key="vnet.id", index=True)
    name: str
    cidr: str

    __table_args__ = (unique_among_the_living("vnet_id", "name"),)
