"""Agents."""

from kahuna.store.resource import Resource, unique_among_the_living


class Agent(Resource, table=True):
    """Agents."""

    name: str

    __table_args__ = (unique_among_the_living("name"),)
