"""One transaction, in which a function reads and writes rows; log entries and the revision are added at its end."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from google.protobuf.message import Message
from sqlalchemy import delete, insert, inspect, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from kahuna.domain.errors import Refusal, not_found, on_field
from kahuna.domain.reach import Ids, Reader
from kahuna.store.resource import (
    CONTRACT,
    TABLES,
    Lock,
    Resource,
    changed_links,
    checked_spec,
    column_values,
    desired_of,
    message_class,
    message_of,
    meta,
    own_columns,
    reference_readers,
    status_of,
)
from kahuna.store.tables import AUDIT_RETENTION_US, REQUEST_RETENTION_US, Audit, Gone, Head, Log, Reference, Request
from kahuna.store.view import MAX_TAIL_CHANGES, Change, Commit, entry_of

M = TypeVar("M", bound=Message)

# Ids in one query: databases limit the parameters of a statement.
MAX_IDS = 10_000


class StaleRead(Exception):
    """A row read without a lock was changed by another transaction meanwhile: this one must run again."""


class Transaction(Reader):
    """The database as one transaction sees it. `now` is in microseconds since 1970; `new_id` returns a random id.

    `lock` and `get` lock the row for a decision or a change. `finish` sets `revision`.
    """

    def __init__(self, session: Session, now: int, new_id: Callable[[], str]) -> None:
        self.session = session
        self.now = now
        self.new_id = new_id
        self.revision = 0
        self._touched: dict[tuple[str, str], Resource] = {}
        self._removed: dict[tuple[str, str], Resource] = {}
        self._locked: dict[tuple[str, str], tuple[Lock, Resource]] = {}

    def find(self, kind: str, id_: str, lock: Lock | None = None) -> Message | None:
        """Returns a resource, or None."""
        row = self._row(kind, id_, lock)
        return message_of(kind, row) if row else None

    def one(self, kind: type[M], id_: str) -> M:
        """Returns a resource that must exist, because another row names it."""
        found = self.find(kind.DESCRIPTOR.name, id_)
        assert isinstance(found, kind), f"no {kind.DESCRIPTOR.name} {id_}"
        return found

    def each(self, kind: type[M], field: str, target: str) -> Iterator[M]:
        """Yields the resources of a kind whose field names the target."""
        name = kind.DESCRIPTOR.name
        rows = self.session.exec(select(TABLES[name]).where(col(TABLES[name].id).in_(_sources_of(name, field, target))))
        return (cast(M, message_of(name, row)) for row in rows.all())

    def targets(self, kind: str, field: str, sources: Ids) -> Ids:
        table = TABLES[kind]
        column = getattr(table, f"{field}_id", None)
        if column is not None:
            locked = {id_: self._locked[kind, id_][1] for id_ in sources if (kind, id_) in self._locked}
            named = {getattr(row, column.key) for row in locked.values()} - {None}
            return named.union(self._read(select(column).where(column.is_not(None)), table.id, sources - locked.keys()))
        read, rows = reference_readers(kind)[field], self._read(select(table), table.id, sources)
        return {target for row in rows for target in read(message_of(kind, row)) if target}

    def sources(self, kind: str, field: str, targets: Ids) -> Ids:
        return set(self._read(*_sources(kind, field), targets))

    def lock_found(self, kind: str, query: Any) -> list[Message]:
        """Returns the resources found by a query for rows of a kind, locked exclusively."""
        rows = self.session.exec(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()
        self._locked |= {(kind, row.id): (Lock.EXCLUSIVE, row) for row in rows}
        return [message_of(kind, row) for row in rows]

    def find_all(self, kind: type[M], ids: Ids) -> list[M]:
        """Those resources that are there, in one query."""
        name = kind.DESCRIPTOR.name
        return [cast(M, message_of(name, row)) for row in self._read(select(TABLES[name]), TABLES[name].id, ids)]

    def lock_all(self, kind: type[M], ids: Ids) -> list[M]:
        """Those resources that are there, locked exclusively, in one query and in the order of their ids."""
        name, id_ = kind.DESCRIPTOR.name, col(TABLES[kind.DESCRIPTOR.name].id)
        return cast(list[M], self.lock_found(name, select(TABLES[name]).where(id_.in_(ids)).order_by(id_)))

    def lock(self, kind: type[M], id_: str) -> M:
        """Returns a resource, locked exclusively. Raises Refusal NOT_FOUND."""
        return cast(M, self.get(kind.DESCRIPTOR.name, id_))

    def get(self, kind: str, id_: str) -> Message:
        """Like `lock`, for a kind given by name."""
        return message_of(kind, self._row_to_change(kind, id_))

    def add(self, kind: str, message: M, *, secret: bytes = b"") -> M:
        """Adds a resource, with a new id if it has none. Raises Refusal when its name or an address is taken."""
        meta(message).id = meta(message).id or self.new_id()
        row = TABLES[kind](
            id=meta(message).id,
            create_time=self.now,
            update_time=self.now,
            spec=checked_spec(kind, message),
            status=status_of(message),
            secret=secret,
            **column_values(kind, message),
        )
        self.session.add(row)
        self._store_references(kind, row.id, None, message)
        self._locked[kind, row.id] = Lock.EXCLUSIVE, row
        return cast(M, self._save(kind, row))

    def put(self, kind: str, message: M) -> M:
        """Writes the spec of a resource. Increments the generation if a field that agents act on has changed."""
        row = self._row_as_read(kind, message)
        spec = checked_spec(kind, message)
        if spec == row.spec:
            return cast(M, message_of(kind, row))
        before = message_class(kind).FromString(row.spec)
        self._store_references(kind, row.id, before, message)
        row.generation += desired_of(message) != desired_of(before)
        row.spec, row.update_time = spec, self.now
        for column, value in column_values(kind, message).items():
            setattr(row, column, value)
        return cast(M, self._save(kind, row))

    def increment_generation(self, kind: str, id_: str) -> Message:
        """Increments the generation without a change, so that an agent which gave up tries again."""
        row = self._row_to_change(kind, id_)
        row.generation, row.update_time = row.generation + 1, self.now
        return self._save(kind, row)

    def report(self, kind: str, message: M) -> M:
        """Writes the status of a resource; the generation stays."""
        row = self._row_as_read(kind, message)
        status = status_of(message)
        if status == row.status:
            return cast(M, message_of(kind, row))
        row.status = status
        return cast(M, self._save(kind, row))

    def mark(self, kind: str, id_: str) -> Message:
        """Marks a resource for deletion, which frees its name at once."""
        row = self._row_to_change(kind, id_)
        if row.delete_time is not None:
            return message_of(kind, row)
        row.delete_time, row.generation = self.now, row.generation + 1
        return self._save(kind, row)

    def remove(self, kind: str, id_: str) -> None:
        """Deletes a row. Raises StaleRead if another transaction has deleted it."""
        row = self._row(kind, id_, Lock.EXCLUSIVE)
        if row is None:
            raise StaleRead
        self.session.execute(delete(Gone).where(col(Gone.object_id) == id_))
        self.session.execute(delete(Reference).where(col(Reference.source_id) == id_))
        self.session.delete(row)
        self.session.flush()
        self._touched.pop((kind, id_), None)
        self._locked.pop((kind, id_), None)
        self._removed[kind, id_] = row

    def has_referring(self, kind: str, id_: str) -> bool:
        """Whether any row, marked or not, names this one."""
        queries = (_sources_of(source, field, id_).limit(1) for source, field in references_to(kind))
        return any(self.session.exec(query).first() for query in queries)

    def unmarked_names(self, kind: str, field: str, target: str, limit: int) -> list[str]:
        """Returns the names of the first unmarked resources of a kind whose field names the target."""
        table: Any = TABLES[kind]
        found = select(getattr(table, "name", table.id)).where(
            table.id.in_(_sources_of(kind, field, target)), table.delete_time.is_(None)
        )
        return list(self.session.exec(found.limit(limit)).all())

    def insert_new(self, table: type[Any], **values: Any) -> bool:
        """Inserts a row unless its key exists, without failing the transaction. Returns whether it did."""
        dialect = sqlite if self.session.get_bind().dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table).values(**values).on_conflict_do_nothing()
        return self.session.execute(statement.returning(*table.__table__.primary_key)).first() is not None

    def finish(self) -> Commit | None:
        """Takes the next revision and writes the log, right before the commit. Returns None if nothing changed."""
        self.session.flush()
        if not self._touched and not self._removed:
            return None
        next_revision = update(Head).values(revision=Head.revision + 1).returning(col(Head.revision))
        revision = self.revision = int(self.session.execute(next_revision).scalar_one())
        for row in self._touched.values():
            row.revision = revision
        entries, changes = [], []
        for (kind, id_), row in (self._touched | self._removed).items():
            removed, project = (kind, id_) in self._removed, getattr(row, "project_id", None) or ""
            entries.append({"revision": revision, "id": id_, "kind": kind, "project": project, "removed": removed})
            changes.append(Change(revision, kind, id_, None if removed else entry_of(kind, row)))
        self.session.execute(insert(Log), entries)
        self.session.flush()
        return Commit(revision, tuple(changes))

    def _save(self, kind: str, row: Resource) -> Message:
        """Flushes a row. Raises Refusal for a violated constraint."""
        message = message_of(kind, row)
        try:
            self.session.flush()
        except IntegrityError as error:
            _refuse(kind, message, error)
        self._touched[kind, row.id] = row
        return message

    def _store_references(self, kind: str, id_: str, before: Message | None, after: Message) -> None:
        """Stores the references without a column (in lists and nested messages) as rows of their own."""
        fields = _without_column(kind)
        added, dropped = changed_links(kind, id_, before, after) if fields else ((), ())
        for link in dropped:
            if link.field in fields:
                self.session.delete(self.session.get_one(Reference, (id_, link.field, link.target)))
        for link in added:
            if link.field in fields:
                self.session.add(Reference(source_id=id_, field=link.field, target_id=link.target, kind=kind))

    def _read(self, query: Any, column: Any, ids: Ids) -> Iterator[Any]:
        """Yields the results of a query where a column has any of these ids, of which there may be any number."""
        wanted = sorted(ids)
        for start in range(0, len(wanted), MAX_IDS):
            yield from self.session.exec(query.where(column.in_(wanted[start : start + MAX_IDS]))).all()

    def _row(self, kind: str, id_: str, lock: Lock | None = None) -> Resource | None:
        """Returns a row. One that is locked already is not read again."""
        locked, row = self._locked.get((kind, id_), (None, None))
        if locked is not None and lock in (None, locked, Lock.SHARED):
            return row
        # PostgreSQL refuses a text with a NUL as a parameter.
        # With `key_share`, other transactions may still add rows that name this one.
        how = {None: None, Lock.SHARED: {"read": True}, Lock.EXCLUSIVE: {"key_share": True}}[lock]
        fresh = lock is not None  # else the session would return the row as it was read before
        row = None if "\0" in id_ else self.session.get(TABLES[kind], id_, with_for_update=how, populate_existing=fresh)
        if row is not None and lock is not None:
            self._locked[kind, id_] = lock, row
        return row

    def _row_as_read(self, kind: str, message: Message) -> Resource:
        """Returns the locked row of a message. Raises StaleRead if another transaction changed it after the read."""
        row = self._row(kind, meta(message).id, Lock.EXCLUSIVE)
        if row is None or row.revision != meta(message).revision:
            raise StaleRead
        return row

    def _row_to_change(self, kind: str, id_: str) -> Resource:
        """Returns a row, locked exclusively. Raises Refusal NOT_FOUND."""
        row = self._row(kind, id_, Lock.EXCLUSIVE)
        if row is None:
            raise not_found(CONTRACT.kinds[kind].command, id_)
        return row


def prune(tx: Transaction) -> None:
    """Removes requests, audit rows and log entries that are past their retention."""
    tx.session.execute(delete(Request).where(col(Request.time) < tx.now - REQUEST_RETENTION_US))
    tx.session.execute(delete(Audit).where(col(Audit.time) < tx.now - AUDIT_RETENTION_US))
    head = tx.session.exec(select(Head.revision)).one()
    tx.session.execute(delete(Log).where(col(Log.revision) <= head - MAX_TAIL_CHANGES))


def references_to(kind: str) -> Iterator[tuple[str, str]]:
    """Yields each kind and field that can name a resource of a kind, of those stored in the database."""
    for source in CONTRACT.kinds.values():
        for reference in source.message.references:
            if reference.kind == kind and (
                _column(source.name, reference.name) or reference.name in _without_column(source.name)
            ):
                yield source.name, reference.name


@cache
def _without_column(kind: str) -> frozenset[str]:
    """Returns the references of a kind without a column in its table: in lists and nested messages."""
    references = CONTRACT.kinds[kind].message.references
    return frozenset(item.name for item in references if item.repeated or len(item.fields) > 1)


def _column(kind: str, field: str) -> Any:
    return getattr(TABLES[kind], f"{field}_id", None)


def _sources(kind: str, field: str) -> tuple[Any, Any]:
    """Returns a query for the ids of resources of a kind with a reference field, and the column with its targets."""
    column = _column(kind, field)
    if column is not None:
        return select(col(TABLES[kind].id)), column
    rows = select(col(Reference.source_id)).where(Reference.kind == kind, Reference.field == field)
    return rows, col(Reference.target_id)


def _sources_of(kind: str, field: str, target: str) -> Any:
    """Returns a query for the ids of the resources of a kind whose field names the target."""
    query, column = _sources(kind, field)
    return query.where(column == target)


def _refuse(kind: str, message: Message, error: IntegrityError) -> NoReturn:
    """Raises the refusal for a violated constraint."""
    command, columns = CONTRACT.kinds[kind].command, _violated(TABLES[kind], error)
    if columns in TABLES[kind].constraint_messages:
        reason, field, text = TABLES[kind].constraint_messages[columns]
        values = {name: getattr(message, name) for name in own_columns(kind).values()}
        raise on_field(reason, field, text.format(**values)) from error
    if "name" in columns:
        owners = [own_columns(kind)[column] for column in columns if column != "name"]
        scope = " of its " + " and ".join(owners) if owners else ""
        name = getattr(message, "name", "")
        raise Refusal("NAME_TAKEN", f"another {command}{scope} is called {name!r}; choose another name") from error
    raise Refusal("CONFLICT", f"the {command} collides with a change made at the same time; try again") from error


def _violated(table: type[Resource], error: IntegrityError) -> tuple[str, ...]:
    """Returns the columns of the violated unique index; none for another constraint."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is None:  # SQLite: "UNIQUE constraint failed: zone.region_id, zone.name"
        return tuple(re.findall(rf"\b{table.__tablename__}\.(\w+)", str(error.orig)))
    indices = {index.name: tuple(index.columns.keys()) for index in inspect(table).local_table.indexes}
    return indices.get(diagnosis.constraint_name, ())
