"""Projects: owners of instances, volumes and adapters."""

from kahuna.store.resource import Resource


class Project(Resource, table=True):
    name: str

    informs = ("Instance(project).kaktus.agent",)
