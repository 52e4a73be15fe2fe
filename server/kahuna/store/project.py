"""Projects."""

from kahuna.store.resource import Resource, unique_among_the_living


class Project(Resource, table=True):
    """Projects."""

    name: str

    __table_args__ = (unique_among_the_living("name"),)
