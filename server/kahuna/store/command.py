"""Commands on their way: what agents are to do once."""

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field, SQLModel


class Command(SQLModel, table=True):
    """One command until its end; its id is its operation's. `deadline` is in microseconds since 1970.

    `sent` is set before it is sent, so that it is never sent twice.
    """

    id: str = Field(primary_key=True, max_length=36)
    agent_id: str = Field(index=True, max_length=36)
    target_id: str = Field(index=True, max_length=36)
    deadline: int = Field(sa_type=BigInteger)
    sent: bool = False
    data: bytes = Field(sa_type=LargeBinary)
