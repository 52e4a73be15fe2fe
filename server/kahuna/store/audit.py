"""The audit trail: every change that was asked for, kept longer than its operation."""

from sqlalchemy import BigInteger, Integer
from sqlmodel import Field, SQLModel

_COUNTED = BigInteger().with_variant(Integer, "sqlite")


class Audit(SQLModel, table=True):
    """Who asked for which change of what, when and why; written with the change. Microseconds since 1970.

    The database refuses to alter a row, and to delete one younger than a year (migration 0003).
    """

    id: int | None = Field(default=None, primary_key=True, sa_type=_COUNTED)
    time: int = Field(sa_type=BigInteger, index=True)
    caller: str
    method: str
    reason: str = ""
    target_kind: str = ""
    target: str = Field(default="", index=True)
    target_name: str = ""
    project: str = ""
    operation: str = ""
