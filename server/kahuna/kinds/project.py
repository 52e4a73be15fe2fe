"""Projects: what instances, volumes and adapters belong to."""

from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource, unique_unless_deleted
from kowa.v2 import project_pb2


class Project(Resource, table=True):
    """Projects."""

    name: str

    __table_args__ = (unique_unless_deleted("name"),)


class Projects(Kind[project_pb2.Project]):
    """Projects: the standard methods, nothing else."""

    table = Project
    informs = ("Instance(project).kaktus.agent",)
