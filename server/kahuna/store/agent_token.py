"""What agents sign in with; `sealed` holds the keyed hash of the secret."""

from sqlmodel import Field

from kahuna.store.resource import Resource, unique_among_the_living


class AgentToken(Resource, table=True):
    """What agents sign in with; `sealed` holds the keyed hash of the secret."""

    agent_id: str = Field(foreign_key="agent.id", index=True)
    name: str
    prefix: str = Field(index=True, unique=True)

    __table_args__ = (unique_among_the_living("agent_id", "name"),)
