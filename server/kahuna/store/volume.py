"""Volumes of a project; one machine at most holds a volume."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class Volume(Resource, table=True):
    """Volumes of a project; one machine at most holds a volume."""

    project_id: str = Field(foreign_key="project.id", index=True)
    name: str
    storage_pool_id: str = Field(foreign_key="storagepool.id", index=True)
    template_id: str | None = Field(default=None, foreign_key="template.id", index=True)
    instance_id: str | None = Field(default=None, foreign_key="instance.id", index=True)

    __table_args__ = (unique_among_the_living("project_id", "name"),)
