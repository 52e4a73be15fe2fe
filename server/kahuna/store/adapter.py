"""Network cards; no address twice in a subnet, no hardware address twice at all."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Adapter(Resource, table=True):
    """Network cards; no address twice in a subnet, no hardware address twice at all."""

    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    subnet_id: str = Field(foreign_key="subnet.id", index=True)
    mac: str
    address: str
    instance_id: str | None = Field(default=None, foreign_key="instance.id", index=True)

    __table_args__ = (
        unique_among_the_living("project_id", "name"),
        unique_among_the_living("subnet_id", "address"),
        unique_among_the_living("mac"),
    )
