"""Projects: what instances, volumes and adapters belong to."""

from kahuna.store.resource import Resource


class Project(Resource, table=True):
    name: str

    informs = ("Instance(project).kaktus.agent",)
