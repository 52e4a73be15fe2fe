"""Operations: what was asked for and how it went."""

from sqlmodel import Field

from kahuna.store.resource import Resource


class Operation(Resource, table=True):
    """Operations; `target` is no foreign key, for an operation outlives what it was about."""

    target: str = Field(index=True)
    phase: int = Field(index=True)
