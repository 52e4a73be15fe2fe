"""Projects: what instances, volumes and adapters belong to."""

from kahuna.store.resource import Resource, unique_unless_deleted


class Project(Resource, table=True):
    """Projects."""

    name: str

    __table_args__ = (unique_unless_deleted("name"),)
    informs = ("Instance(project).kaktus.agent",)
