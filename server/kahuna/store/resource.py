"""The columns that all resources' tables have, and conversions between rows and messages."""

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
from kahuna.domain.errors import Violation, on_fields
from kahuna.domain.lifecycle import state
from kahuna.domain.reach import Link
from kowa import contract
from kowa.sizes import in_words
from kowa.v2 import meta_pb2, options_pb2

M = TypeVar("M", bound=Message)
CONTRACT = contract.load()
# An index is named after all its columns, so that the name of a violated one tells which value is taken.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
# A resource is read in one message, of which gRPC's clients take 4 MiB: this leaves room for what is reported of it.
MAX_SPEC_BYTES = 7 << 19
LARGE_FIELD_BYTES = 64 << 10  # of a field that is named when the resource is too large
TABLES: dict[str, type["Resource"]] = {}


class Lock(Enum):
    """The locks on a row, which last until the end of a transaction."""

    SHARED = "shared"  # nobody can change the row; others may lock it so, too
    EXCLUSIVE = "exclusive"


class Resource(SQLModel):
    """The columns of every kind. `spec` is the message with the fields that clients write, `status` with reported ones.

    `secret` is never shown. Times are microseconds since 1970. A kind's own columns are named after its fields, with
    the suffix `_id` for a reference; they are copies of the message's fields for constraints and queries.
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
    """Paths (domain/reach.py) to the agents that realise a resource on their hosts; its deletion waits for them."""
    informs: ClassVar[tuple[str, ...]] = ()
    """Paths to the agents that receive a resource without realising it."""
    lock_by_reference: ClassVar[Lock] = Lock.SHARED
    """The lock that a new reference to a resource takes; exclusive if the reference uses something up, like space or an
    address: two transactions with shared locks that both needed an exclusive one would wait for each other."""
    cleared_with_target: ClassVar[frozenset[str]] = frozenset()
    """References that are cleared when their target is deleted; any other keeps its target from being deleted."""
    part_of: ClassVar[str] = ""
    """The kind of the whole that a resource may be a part of, named in its field of that noun and deleted with it."""
    constraint_messages: ClassVar[Mapping[tuple[str, ...], tuple[str, str, str]]] = {}
    """Refusals for unique indexes, by their columns: reason, field, and text with the message's fields in braces. Those
    with `name` need none."""

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Index, ...]:  # noqa: N805 - called on the class
        """The unique indexes of the contract, over rows that are not marked for deletion."""
        kind = CONTRACT.kinds[cls.__name__]
        return tuple(_unique_index(kind, unique) for unique in kind.uniques)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        TABLES[cls.__name__] = cls


def _unique_index(kind: contract.Kind, unique: options_pb2.Unique) -> Index:
    fields = kind.message.fields
    columns = {name: f"{name}_id" if fields[name].ref else name for name in (*unique.fields, unique.unless) if name}
    condition = text("delete_time IS NULL" + (f" AND {columns[unique.unless]} IS NULL" if unique.unless else ""))
    names = [columns[name] for name in unique.fields]
    return Index(None, *names, unique=True, sqlite_where=condition, postgresql_where=condition)


@cache
def message_class(kind: str) -> type[Message]:
    """Returns the generated message class of a kind."""
    return CONTRACT.stub(CONTRACT.kinds[kind].message.name)


@cache
def own_columns(kind: str) -> Mapping[str, str]:
    """Returns the columns that a kind adds, with the field that each is filled from."""
    columns = (name for name in TABLES[kind].model_fields if name not in Resource.model_fields)
    return {column: column.removesuffix("_id") for column in columns}


def column_values(kind: str, message: Message) -> dict[str, Any]:
    """Returns the values of the kind's own columns. Empty ones are NULL where allowed: unique indexes ignore NULLs."""
    columns = TABLES[kind].__table__.columns  # type: ignore[attr-defined]
    values = {column: getattr(message, field) for column, field in own_columns(kind).items()}
    return {name: (value or None) if columns[name].nullable else value for name, value in values.items()}


def changed_links(kind: str, id_: str, before: Message | None, after: Message | None) -> tuple[list[Link], list[Link]]:
    """Returns the references of a resource that a change has added, and those that it has dropped."""
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
    """Returns readers of the ids in each reference field, by its path; some ids may be empty."""

    def reader(reference: contract.Reference) -> Callable[[Message], Collection[str]]:
        if reference.repeated:
            return lambda message: [id_ for _, id_ in reference.find(message)]
        read = attrgetter(reference.name)
        return lambda message: (read(message),)

    return {reference.name: reader(reference) for reference in CONTRACT.kinds[kind].message.references}


def meta(message: Message) -> meta_pb2.Meta:
    """The server's part of any resource."""
    return cast(meta_pb2.Meta, message.meta)  # type: ignore[attr-defined]


def copy_of(message: M) -> M:
    """Returns a copy of a message, to be changed."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def clear(message: Message, *fields: str) -> None:
    """Clears some fields; ignores those that the message's type does not have."""
    for field in fields:
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)


def spec_of(message: Message, *without: str) -> bytes:
    """Returns the content of `spec`: all fields except `meta` and `status`."""
    kept = copy_of(message)
    clear(kept, "meta", "status", *without)
    return kept.SerializeToString(deterministic=True)


def checked_spec(kind: str, message: Message) -> bytes:
    """Returns the content of `spec`. Raises Refusal on the large fields of a resource that would fit no message.

    Each field may be within its own limit, also in each of several updates.
    """
    spec = spec_of(message)
    if len(spec) <= MAX_SPEC_BYTES:
        return spec
    kept, violations = copy_of(message), []
    clear(kept, "meta", "status")
    for field, _ in kept.ListFields():
        part = copy_of(kept)
        part.ClearField(field.name)
        if (size := len(spec) - part.ByteSize()) >= LARGE_FIELD_BYTES:
            own, whole, most = in_words(size, len(spec), MAX_SPEC_BYTES)
            text = f"has {own} of the {whole} that the {CONTRACT.kinds[kind].command} would have, {most} at most in all"
            violations.append(Violation(field.name, f"{text}; shorten it or another large field"))
    raise on_fields("INVALID_ARGUMENT", violations)


def desired_of(message: Message) -> bytes:
    """Returns the part of `spec` that agents act on, which decides about a new generation: all but labels."""
    return spec_of(message, "labels")


def status_of(message: Message) -> bytes:
    """Returns the content of `status`: the reported fields, the generation they are of, failure and conditions."""
    kept = type(message)()
    source, target = meta(message), meta(kept)
    target.observed_generation = source.observed_generation
    target.conditions.extend(source.conditions)
    if source.state in (meta_pb2.STATE_ERROR, meta_pb2.STATE_PENDING):
        target.state = source.state
    if "status" in kept.DESCRIPTOR.fields_by_name:
        kept.status.CopyFrom(message.status)  # type: ignore[attr-defined]
    return kept.SerializeToString(deterministic=True)


def message_of(kind: str, row: Any) -> Message:
    """Returns the whole resource of a row (or of a tuple with the columns of Resource)."""
    # Parsing two concatenated messages merges them.
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
    """Returns a hash of the fields that clients may write."""
    kept = copy_of(message)
    kept.ClearField("meta")
    clear_output_only(kept)
    return hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest()[:16]
