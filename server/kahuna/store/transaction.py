"""One transaction: rows, the log entry, the revision. An ordinary function of it runs, then it commits as a whole."""

import re
from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from google.protobuf.message import Message
from sqlalchemy import delete, insert, inspect, text, update
from sqlalchemy.dialects.postgresql import insert as upsert_postgresql
from sqlalchemy.dialects.sqlite import insert as upsert_sqlite
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from kahuna.domain.errors import Refusal, not_found
from kahuna.domain.reach import Ids, Reader
from kahuna.store.gone import Gone
from kahuna.store.log import Head, Log
from kahuna.store.reference import Reference
from kahuna.store.resource import (
    CONTRACT,
    TABLES,
    Lock,
    Resource,
    column_values,
    desired_of,
    links_moved,
    message_class,
    message_of,
    meta,
    named_by,
    own_columns,
    spec_of,
    status_of,
)
from kahuna.store.view import Change, Commit, Entry

M = TypeVar("M", bound=Message)

# How many ids one query may name: databases bound the parameters of a statement.
MAX_IDS = 10_000


class StaleRead(Exception):
    """A row read without a lock was changed by another transaction before it was written: run this one anew."""


class Transaction(Reader):
    """The database as one transaction sees it. `now` is in microseconds since 1970; `new_id` draws an id.

    Reads lock what the caller is about to judge or change. `revision` is set by `finish`.
    """

    def __init__(self, session: Session, now: int, new_id: Callable[[], str]) -> None:
        self.session = session
        self.now = now
        self.new_id = new_id
        self.revision = 0
        self._touched: dict[tuple[str, str], Resource] = {}
        self._removed: dict[tuple[str, str], str] = {}
        self._locked: dict[tuple[str, str], tuple[Lock, Resource]] = {}

    def limit_locks(self) -> None:
        """Waits a second at most for what others hold; SQLite's one writer waits for nobody."""
        if self.session.get_bind().dialect.name == "postgresql":
            self.session.execute(text("SET LOCAL lock_timeout = '1s'"))

    def find(self, kind: str, id_: str, lock: Lock | None = None) -> Message | None:
        """A resource, or nothing."""
        row = self._row(kind, id_, lock)
        return message_of(kind, row) if row else None

    def one(self, kind: type[M], id_: str) -> M:
        """A resource that is there, since a row of another names it."""
        found = self.find(kind.DESCRIPTOR.name, id_)
        assert isinstance(found, kind), f"no {kind.DESCRIPTOR.name} {id_}"
        return found

    def referring(self, kind: str, field: str, target: str) -> Iterator[Message]:
        """The resources of a kind whose field names the target."""
        table = TABLES[kind]
        named = _sources(kind, field).where(_target(kind, field) == target)
        rows = self.session.exec(select(table).where(col(table.id).in_(named)))
        return (message_of(kind, row) for row in rows.all())

    def targets(self, kind: str, field: str, sources: Ids) -> Ids:
        table = TABLES[kind]
        column = getattr(table, f"{field}_id", None)
        if column is not None:
            held = {id_: self._locked[kind, id_][1] for id_ in sources if (kind, id_) in self._locked}
            named = {getattr(row, column.key) for row in held.values()} - {None}
            return named.union(self._read(select(column).where(column.is_not(None)), table.id, sources - held.keys()))
        rows = self._read(select(table), table.id, sources)
        return {named for row in rows for named in named_by(kind, field, message_of(kind, row)) if named}

    def sources(self, kind: str, field: str, targets: Ids) -> Ids:
        return set(self._read(_sources(kind, field), _target(kind, field), targets))

    def each(self, kind: type[M], field: str, target: str) -> Iterator[M]:
        """The resources of a kind whose field names the target, typed."""
        return cast(Iterator[M], self.referring(kind.DESCRIPTOR.name, field, target))

    def lock_found(self, kind: str, query: Any) -> list[Message]:
        """The resources that a query for rows of a kind finds, locked exclusively."""
        rows = self.session.exec(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()
        self._locked |= {(kind, row.id): (Lock.EXCLUSIVE, row) for row in rows}
        return [message_of(kind, row) for row in rows]

    def row(self, kind: str, id_: str) -> Resource:
        """A row, locked exclusively. Raises Refusal NOT_FOUND."""
        row = self._row(kind, id_, Lock.EXCLUSIVE)
        if row is None:
            raise not_found(CONTRACT.kinds[kind].command, id_)
        return row

    def get(self, kind: str, id_: str) -> Message:
        """A resource about to be changed. Raises Refusal NOT_FOUND."""
        return message_of(kind, self.row(kind, id_))

    def lock(self, kind: type[M], id_: str) -> M:
        """A resource about to be changed or judged, typed. Raises Refusal NOT_FOUND."""
        return cast(M, self.get(kind.DESCRIPTOR.name, id_))

    def lock_reference(self, kind: str, id_: str) -> Message | None:
        """A resource that another will name, locked so that it stays as it is; nothing if there is none."""
        row = self._row(kind, id_, TABLES[kind].lock_by_reference)
        return message_of(kind, row) if row else None

    def add(self, kind: str, message: M, *, secret: bytes = b"") -> M:
        """A new resource with an id of its own. Raises Refusal when its name or an address is taken."""
        meta(message).id = meta(message).id or self.new_id()
        row = TABLES[kind](
            id=meta(message).id,
            create_time=self.now,
            update_time=self.now,
            spec=spec_of(message),
            status=status_of(message),
            secret=secret,
            **column_values(kind, message),
        )
        self.session.add(row)
        self._flush(kind, message)
        self._store_references(kind, row.id, None, message)
        self._touched[kind, row.id] = row
        self._locked[kind, row.id] = Lock.EXCLUSIVE, row
        return cast(M, message_of(kind, row))

    def put(self, kind: str, message: M) -> M:
        """What is wanted or allocated as it shall be now; the generation moves if what agents act on has moved."""
        row = self._row_as_read(kind, message)
        spec = spec_of(message)
        if spec != row.spec:
            before = message_class(kind).FromString(row.spec)
            self._store_references(kind, row.id, before, message)
            row.generation += desired_of(message) != desired_of(before)
            row.spec, row.update_time = spec, self.now
            for column, value in column_values(kind, message).items():
                setattr(row, column, value)
            self._flush(kind, message)
            self._touched[kind, row.id] = row
        return cast(M, message_of(kind, row))

    def move_generation(self, kind: str, id_: str) -> Message:
        """The same content at a new generation, so that an agent which gave up tries again."""
        row = self.row(kind, id_)
        row.generation, row.update_time = row.generation + 1, self.now
        self.session.flush()
        self._touched[kind, row.id] = row
        return message_of(kind, row)

    def report(self, kind: str, message: M) -> M:
        """What is seen of a resource; moves no generation."""
        row = self._row_as_read(kind, message)
        status = status_of(message)
        if status != row.status:
            row.status = status
            self.session.flush()
            self._touched[kind, row.id] = row
        return cast(M, message_of(kind, row))

    def mark(self, kind: str, id_: str) -> Message:
        """Marks a resource for deletion: its name is free at once."""
        row = self.row(kind, id_)
        if row.delete_time is None:
            row.delete_time, row.generation = self.now, row.generation + 1
            self.session.flush()
            self._touched[kind, id_] = row
        return message_of(kind, row)

    def remove(self, kind: str, id_: str) -> None:
        """Deletes a row. Raises StaleRead when another transaction has done so."""
        row = self._row(kind, id_, Lock.EXCLUSIVE)
        if row is None:
            raise StaleRead
        project = getattr(row, "project_id", None) or ""
        self.session.execute(delete(Gone).where(col(Gone.object_id) == id_))
        self.session.execute(delete(Reference).where(col(Reference.source_id) == id_))
        self.session.delete(row)
        self.session.flush()
        self._touched.pop((kind, id_), None)
        self._locked.pop((kind, id_), None)
        self._removed[kind, id_] = project

    def has_referring(self, kind: str, id_: str) -> bool:
        """Whether any row, marked or not, names this one."""
        return any(
            self.session.exec(_sources(source, field).where(_target(source, field) == id_).limit(1)).first()
            for source, field in references_to(kind)
        )

    def unmarked_names(self, kind: str, field: str, target: str, limit: int) -> list[str]:
        """The names of the first unmarked resources of a kind whose field names the target."""
        table: Any = TABLES[kind]
        named = _sources(kind, field).where(_target(kind, field) == target)
        found = select(getattr(table, "name", table.id)).where(table.id.in_(named), table.delete_time.is_(None))
        return list(self.session.exec(found.limit(limit)).all())

    def insert_new(self, table: type[Any], **values: Any) -> bool:
        """Inserts unless the key is there, without failing the transaction. Says whether it did."""
        upsert = upsert_sqlite if self.session.get_bind().dialect.name == "sqlite" else upsert_postgresql
        columns = table.__table__
        done = self.session.execute(
            upsert(columns).values(**values).on_conflict_do_nothing().returning(*columns.primary_key)
        )
        return done.first() is not None

    def finish(self) -> Commit | None:
        """Takes the revision and writes the log: the last statements before the commit. Nothing if nothing changed."""
        self.session.flush()
        if not self._touched and not self._removed:
            return None
        moved = update(Head).values(revision=Head.revision + 1).returning(col(Head.revision))
        revision = self.revision = int(self.session.execute(moved).scalar_one())
        entries = [
            {
                "revision": revision,
                "id": id_,
                "kind": kind,
                "project": getattr(row, "project_id", None) or "",
                "removed": False,
            }
            for (kind, id_), row in self._touched.items()
        ] + [
            {"revision": revision, "id": id_, "kind": kind, "project": project, "removed": True}
            for (kind, id_), project in self._removed.items()
        ]
        self.session.execute(insert(Log), entries)
        for row in self._touched.values():
            row.revision = revision
        self.session.flush()
        changes = [
            Change(revision, kind, id_, Entry(revision, message_of(kind, row).SerializeToString(), row.secret))
            for (kind, id_), row in self._touched.items()
        ] + [Change(revision, kind, id_, None) for kind, id_ in self._removed]
        return Commit(revision, tuple(changes))

    def _store_references(self, kind: str, id_: str, before: Message | None, after: Message) -> None:
        """Stores the references that have no column (lists, nested parts) as rows of their own."""
        if kept := _without_column(kind):
            added, dropped = links_moved(kind, id_, before, after)
            for link in (link for link in dropped if link.field in kept):
                row = self.session.get(Reference, (id_, link.field, link.target))
                self.session.delete(row)
            new = [link for link in added if link.field in kept]
            self.session.add_all(
                Reference(source_id=id_, field=link.field, target_id=link.target, kind=kind) for link in new
            )
            self._flush(kind, after)

    def _read(self, query: Any, column: Any, ids: Ids) -> Iterator[Any]:
        """What a query finds where a column is any of these ids, however many they are."""
        wanted = sorted(ids)
        for begin in range(0, len(wanted), MAX_IDS):
            yield from self.session.exec(query.where(column.in_(wanted[begin : begin + MAX_IDS]))).all()

    def _row(self, kind: str, id_: str, lock: Lock | None = None) -> Resource | None:
        """A row; what is locked already is as it was then, or as this transaction has made it."""
        held, row = self._locked.get((kind, id_), (None, None))
        if held is not None and lock in (None, held, Lock.SHARED):
            return row
        # PostgreSQL refuses to be asked for a text with a NUL.
        # Rows that name this one are checked against its key at each commit, which an exclusive lock leaves alone.
        how = {None: None, Lock.SHARED: {"read": True}, Lock.EXCLUSIVE: {"key_share": True}}[lock]
        fresh = lock is not None  # or a row that the session still holds would be as it was read before
        row = None if "\0" in id_ else self.session.get(TABLES[kind], id_, with_for_update=how, populate_existing=fresh)
        if row is not None and lock is not None:
            self._locked[kind, id_] = lock, row
        return row

    def _row_as_read(self, kind: str, message: Message) -> Resource:
        """The row of a message, locked. Raises StaleRead when another transaction has changed it since it was read."""
        row = self._row(kind, meta(message).id, Lock.EXCLUSIVE)
        if row is None or row.revision != meta(message).revision:
            raise StaleRead
        return row

    def _flush(self, kind: str, message: Message) -> None:
        try:
            self.session.flush()
        except IntegrityError as error:
            _refuse(kind, message, error)


def references_to(kind: str) -> Iterator[tuple[str, str]]:
    """Each kind and field that can name a resource of a kind, as far as the database knows."""
    for source in CONTRACT.kinds.values():
        for reference in source.references:
            if reference.kind == kind and (
                _column(source.name, reference.name) or reference.name in _without_column(source.name)
            ):
                yield source.name, reference.name


@cache
def parts_of(kind: str) -> Collection[tuple[str, str]]:
    """Each kind that can be a part of one of a kind, and the field that says so."""
    return tuple((source, field) for source, field in references_to(kind) if TABLES[source].part_of == kind)


@cache
def _without_column(kind: str) -> frozenset[str]:
    """The references of a kind that its table has no column for: those of lists and of nested parts."""
    return frozenset(item.name for item in CONTRACT.kinds[kind].references if item.repeated or len(item.fields) > 1)


def _column(kind: str, field: str) -> Any:
    return getattr(TABLES[kind], f"{field}_id", None)


def _sources(kind: str, field: str) -> Any:
    """A query for the ids of the resources of a kind that name something in a field."""
    if _column(kind, field) is not None:
        return select(col(TABLES[kind].id))
    return select(col(Reference.source_id)).where(Reference.kind == kind, Reference.field == field)


def _target(kind: str, field: str) -> Any:
    """What such a query compares with the id that is named."""
    column = _column(kind, field)
    return column if column is not None else col(Reference.target_id)


def _refuse(kind: str, message: Message, error: IntegrityError) -> NoReturn:
    """Says in the user's words which constraint was in the way."""
    command, columns = CONTRACT.kinds[kind].command, _violated(TABLES[kind], error)
    reason, words = TABLES[kind].constraint_messages.get(columns, ("", ""))
    if reason:
        fields = {field: getattr(message, field) for field in own_columns(kind).values()}
        raise Refusal(reason, words.format(**fields)) from error
    if "name" in columns:
        owners = [own_columns(kind)[column] for column in columns if column != "name"]
        scope = " of its " + " and ".join(owners) if owners else ""
        name = getattr(message, "name", "")
        raise Refusal("NAME_TAKEN", f"another {command}{scope} is called {name!r}; choose another name") from error
    raise Refusal("CONFLICT", f"the {command} collides with a change made at the same time; try again") from error


def _violated(table: type[Resource], error: IntegrityError) -> tuple[str, ...]:
    """The columns of the unique index that was violated; none for another constraint."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is None:  # SQLite: "UNIQUE constraint failed: zone.region_id, zone.name"
        return tuple(re.findall(rf"\b{table.__tablename__}\.(\w+)", str(error.orig)))
    indices = {index.name: tuple(index.columns.keys()) for index in inspect(table).local_table.indexes}
    return indices.get(diagnosis.constraint_name, ())
