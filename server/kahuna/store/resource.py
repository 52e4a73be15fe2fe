"""What every resource's table has, and how a row and its message turn into each other."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, TypeVar, cast

from google.protobuf.message import Message
from sqlalchemy import BigInteger, Index, LargeBinary, text
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel

from kahuna.domain.changes import clear_output_only
from kahuna.domain.lifecycle import state
from kahuna.domain.reach import Link
from kowa import contract
from kowa.v2 import meta_pb2, options_pb2

M = TypeVar("M", bound=Message)
CONTRACT = contract.load()
# An index is named after all its columns, so that a violated one says what was taken.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
TABLES: dict[str, type["Resource"]] = {}


class Lock(Enum):
    """How a row is locked until the end of a transaction."""

    SHARED = "shared"  # it stays as it is; others may hold it so, too
    EXCLUSIVE = "exclusive"


class Resource(SQLModel):
    """The columns of every kind. What a client may write is the message in `spec`; what agents report, in `status`.

    `secret` is shown to nobody. Times are microseconds since 1970. A kind's own columns are named after its fields,
    with `_id` behind a reference; they are filled from the message, for the database to judge.
    """

    id: str = Field(primary_key=True, max_length=36)
    generation: int = Field(default=1, sa_type=BigInteger)
    revision: int = Field(default=0, sa_type=BigInteger)
    create_time: int = Field(default=0, sa_type=BigInteger)
    update_time: int = Field(default=0, sa_type=BigInteger)
    delete_time: int | None = Field(default=None, sa_type=BigInteger, index=True)
    spec: bytes = Field(default=b"", sa_type=LargeBinary)
    status: bytes = Field(default=b"", sa_type=LargeBinary)
    secret: bytes = Field(default=b"", sa_type=LargeBinary)

    reaches: ClassVar[tuple[str, ...]] = ()
    """Paths (domain/reach.py) to the agents that make one on their hosts; its deletion waits for their word."""
    informs: ClassVar[tuple[str, ...]] = ()
    """Paths to the agents that are told of one, and do nothing about it."""
    lock_by_reference: ClassVar[Lock] = Lock.SHARED
    """How one is locked by a transaction that makes another name it. What that uses up, or an address of it, is locked
    exclusively from the start: two that shared it first and then each wanted it alone would wait for each other."""
    cleared_with_target: ClassVar[frozenset[str]] = frozenset()
    """References that are cleared when their target is deleted; any other keeps its target from being deleted."""
    part_of: ClassVar[str] = ""
    """The kind of what one may be a part of, which its field of that noun names: it is deleted with that, not alone."""
    constraint_messages: ClassVar[Mapping[tuple[str, ...], tuple[str, str, str]]] = {}
    """Of a unique index, by its columns: the refusal's reason, the field it names and the words, with the message's
    fields in braces. A name that is taken needs none."""

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Index, ...]:  # noqa: N805 - a class is asked
        """What the contract calls unique, among rows that are not marked for deletion."""
        kind = CONTRACT.kinds[cls.__name__]
        return tuple(_unique_index(kind, unique) for unique in kind.uniques)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        TABLES[cls.__name__] = cls


def _unique_index(kind: contract.Kind, unique: options_pb2.Unique) -> Index:
    fields = kind.message.fields
    columns = {name: f"{name}_id" if fields[name].ref else name for name in (*unique.fields, unique.unless) if name}
    counted = text("delete_time IS NULL" + (f" AND {columns[unique.unless]} IS NULL" if unique.unless else ""))
    names = [columns[name] for name in unique.fields]
    return Index(None, *names, unique=True, sqlite_where=counted, postgresql_where=counted)


@cache
def message_class(kind: str) -> type[Message]:
    """The generated class of a kind."""
    return CONTRACT.stub(CONTRACT.kinds[kind].message.name)


@cache
def own_columns(kind: str) -> Mapping[str, str]:
    """The columns a kind adds, and the field each is filled from."""
    columns = (name for name in TABLES[kind].model_fields if name not in Resource.model_fields)
    return {column: column.removesuffix("_id") for column in columns}


def column_values(kind: str, message: Message) -> dict[str, Any]:
    """What the kind's own columns hold for a message; what is empty is NULL where it may be: NULLs are not equal."""
    columns = TABLES[kind].__table__.columns  # type: ignore[attr-defined]
    values = {column: getattr(message, field) for column, field in own_columns(kind).items()}
    return {name: (value or None) if columns[name].nullable else value for name, value in values.items()}


def changed_links(kind: str, id_: str, before: Message | None, after: Message | None) -> tuple[list[Link], list[Link]]:
    """The references of a resource that a change has added, and those that it has dropped."""
    added, dropped = [], []
    for field, read in reference_readers(kind).items():
        old = read(before) if before is not None else ()
        new = read(after) if after is not None else ()
        if old != new:
            added += [Link(kind, field, id_, target) for target in dict.fromkeys(new) if target and target not in old]
            dropped += [Link(kind, field, id_, target) for target in dict.fromkeys(old) if target and target not in new]
    return added, dropped


@cache
def reference_readers(kind: str) -> Mapping[str, Callable[[Message], Collection[str]]]:
    """What reads the ids in each field that names others, by its path; some ids may be empty."""

    def reader(reference: contract.Reference) -> Callable[[Message], Collection[str]]:
        if reference.repeated:
            return lambda message: [id_ for _, id_ in reference.find(message)]
        read = attrgetter(reference.name)
        return lambda message: (read(message),)

    return {reference.name: reader(reference) for reference in CONTRACT.kinds[kind].references}


def meta(message: Message) -> meta_pb2.Meta:
    """The server's part of any resource."""
    return cast(meta_pb2.Meta, message.meta)  # type: ignore[attr-defined]


def copy_of(message: M) -> M:
    """A copy of a message, to be changed."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def clear(message: Message, *fields: str) -> None:
    """Clears those of some fields that a message has."""
    for field in fields:
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)


def spec_of(message: Message, *without: str) -> bytes:
    """What is kept in `spec`: all but the server's part and what agents report."""
    kept = copy_of(message)
    clear(kept, "meta", "status", *without)
    return kept.SerializeToString(deterministic=True)


def desired_of(message: Message) -> bytes:
    """What of `spec` agents act on; when it changes, so does the generation. Labels are the client's alone."""
    return spec_of(message, "labels")


def status_of(message: Message) -> bytes:
    """What is kept in `status`: the reported fields, the generation they stand for, failure and conditions."""
    kept = type(message)()
    source, target = meta(message), meta(kept)
    target.observed_generation = source.observed_generation
    target.conditions.extend(source.conditions)
    if source.state == meta_pb2.STATE_ERROR:
        target.state = source.state
    if "status" in kept.DESCRIPTOR.fields_by_name:
        kept.status.CopyFrom(message.status)  # type: ignore[attr-defined]
    return kept.SerializeToString(deterministic=True)


def message_of(kind: str, row: Any) -> Message:
    """The whole resource from a row (or a tuple with the columns of Resource)."""
    # Two serialised messages in a row are their merge.
    message = message_class(kind).FromString(row.spec + row.status)
    head = meta(message)
    head.id, head.generation, head.revision = row.id, row.generation, row.revision
    head.create_time.FromMicroseconds(row.create_time)
    head.update_time.FromMicroseconds(row.update_time)
    if row.delete_time is not None:
        head.delete_time.FromMicroseconds(row.delete_time)
    head.etag = _etag_of(message)
    head.state = state(head, converges=CONTRACT.kinds[kind].converges)
    return message


def _etag_of(message: Message) -> str:
    """Covers what a client may write, and nothing else."""
    kept = copy_of(message)
    kept.ClearField("meta")
    clear_output_only(kept)
    return hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest()[:16]
