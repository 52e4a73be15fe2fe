"""Tables other than the resources': revision log, references, reports of gone resources, requests, audit trail, keys.

Times are in microseconds since 1970.
"""

from sqlalchemy import BigInteger, Integer, LargeBinary
from sqlmodel import Field, SQLModel

DAY_US = 24 * 3600 * 1_000_000
REQUEST_RETENTION_US = DAY_US  # for so long a repeated request is recognised
AUDIT_RETENTION_US = 400 * DAY_US


class Head(SQLModel, table=True):
    """One row. Its revision is incremented last in a transaction, so that revisions are dense and in commit order.

    `incarnation` is a random id of the store's history: a new one after every restore.
    """

    id: int = Field(default=1, primary_key=True)
    revision: int = Field(default=0, sa_type=BigInteger)
    incarnation: str


class Log(SQLModel, table=True):
    """One resource changed or removed by one commit. Its content is only in the resource's own table."""

    revision: int = Field(primary_key=True, sa_type=BigInteger)
    id: str = Field(primary_key=True, max_length=36)
    kind: str
    project: str = ""
    removed: bool = False


class Reference(SQLModel, table=True):
    """A reference in a field without a column: in a list or a nested message. Written and removed with its source."""

    source_id: str = Field(primary_key=True, max_length=36)
    field: str = Field(primary_key=True)
    target_id: str = Field(primary_key=True, max_length=36, index=True)
    kind: str


class Gone(SQLModel, table=True):
    """One agent's report that a marked resource is not on its host any more; removed with the resource."""

    object_id: str = Field(primary_key=True, max_length=36)
    agent_id: str = Field(primary_key=True, max_length=36)


class Request(SQLModel, table=True):
    """A change with a `request_id`, so that a repetition changes nothing; written with its effect."""

    caller: str = Field(primary_key=True)
    method: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    digest: bytes = Field(sa_type=LargeBinary)
    target: str = ""
    operation: str = ""
    time: int = Field(sa_type=BigInteger, index=True)


class Audit(SQLModel, table=True):
    """One audited call: caller, method, target, time, reason. Written with its change, kept longer than its operation.

    The database refuses to alter a row, and to delete one younger than a year (migration 0003).
    """

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer, "sqlite"))
    time: int = Field(sa_type=BigInteger, index=True)
    caller: str
    method: str
    reason: str = ""
    target_kind: str = ""
    target: str = Field(default="", index=True)
    target_name: str = ""
    project: str = ""
    operation: str = ""


class AdminKey(SQLModel, table=True):
    """The keyed hash of the platform owner's key, by the key's prefix."""

    prefix: str = Field(primary_key=True)
    digest: bytes = Field(sa_type=LargeBinary)
