"""The references that no column holds: those of lists and of nested parts."""

from sqlmodel import Field, SQLModel


class Reference(SQLModel, table=True):
    """A resource, the source, names another in a field; written with the source, gone with it."""

    source_id: str = Field(primary_key=True, max_length=36)
    field: str = Field(primary_key=True)
    target_id: str = Field(primary_key=True, max_length=36, index=True)
    kind: str
