"""Which agents have reported a marked resource gone."""

from sqlmodel import Field, SQLModel


class Gone(SQLModel, table=True):
    """One agent's word that a resource is not on its host any more; goes with the row it is about."""

    object_id: str = Field(primary_key=True, max_length=36)
    agent_id: str = Field(primary_key=True, max_length=36)
