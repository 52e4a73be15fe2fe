"""Requests by the caller's own id, so that a repeat changes nothing."""

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field, SQLModel


class Request(SQLModel, table=True):
    """A mutation that carried a `request_id`; written with its effect, kept a day. Microseconds since 1970."""

    caller: str = Field(primary_key=True)
    method: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    digest: bytes = Field(sa_type=LargeBinary)
    target: str = ""
    operation: str = ""
    time: int = Field(sa_type=BigInteger, index=True)
