"""The admin key."""

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel


class AdminKey(SQLModel, table=True):
    """The keyed hash of the platform owner's key, by the key's prefix."""

    prefix: str = Field(primary_key=True)
    digest: bytes = Field(sa_type=LargeBinary)
