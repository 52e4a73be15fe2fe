"""The revision log: which resources each commit touched, in commit order, without gaps."""

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel


class Head(SQLModel, table=True):
    """One row. Its revision moves last in a transaction, so that revisions are dense and in commit order.

    `incarnation` names this life of the store: new after every restore.
    """

    id: int = Field(default=1, primary_key=True)
    revision: int = Field(default=0, sa_type=BigInteger)
    incarnation: str


class Log(SQLModel, table=True):
    """One resource touched by one commit, or removed. What it looks like stands with the resource."""

    revision: int = Field(primary_key=True, sa_type=BigInteger)
    id: str = Field(primary_key=True, max_length=36)
    kind: str
    project: str = ""
    removed: bool = False
