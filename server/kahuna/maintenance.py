"""Maintenance commands: a new admin key, the audit trail, a new incarnation after a restore."""

import json
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, col, create_engine, delete, select

from kahuna.security import keys
from kahuna.settings import Settings
from kahuna.store.database import Store
from kahuna.store.schema import migrate
from kahuna.store.tables import DAY_US, AdminKey, Audit, Head
from kowa.files import write


def generate_admin_key(settings: Settings, out: Path) -> None:
    """Writes a new key to a file and its hash to the database, instead of all former ones. Kahuna must be stopped."""
    store = Store(settings.database_url)
    migrate(store.engine)
    hasher = keys.KeyHasher.from_file(settings.state / "secret.key")
    key = keys.generate(keys.ADMIN)
    draft = out.with_name(f"{out.name}.{uuid.uuid4()}")  # replaces the old key's file once the new key is committed
    write(draft, f"{key}\n".encode(), mode=0o600)
    with Session(store.engine) as session:
        session.execute(delete(AdminKey))
        session.add(AdminKey(prefix=keys.prefix_of(key), digest=hasher.hash(key)))
        session.add(Audit(time=_now(), caller="console", method="admin-key", target_kind="AdminKey"))
        session.commit()
    store.dispose()
    draft.replace(out)


def show_audit_trail(settings: Settings, target: str, days: int) -> None:
    """Prints the audit trail, also while Kahuna runs. Raises SystemExit if there is no database yet."""
    query = select(Audit).where(Audit.time >= _now() - days * DAY_US).order_by(col(Audit.id))
    if target:
        query = query.where(Audit.target == target)
    with Session(create_engine(settings.database_url)) as session:
        try:
            rows = session.exec(query)
        except OperationalError as error:
            sys.exit(_unusable("read", error))
        for row in rows:
            values = {name: getattr(row, name) for name in Audit.model_fields if name not in ("id", "time")}
            when = datetime.fromtimestamp(row.time / 1_000_000, UTC).isoformat()
            line = {"time": when, **{name: value for name, value in values.items() if value}}
            sys.stdout.write(f"{json.dumps(line)}\n")


def start_new_incarnation(settings: Settings) -> None:
    """Stores a new incarnation after a restore. Kahuna must be stopped. Raises SystemExit if there is no database yet.

    Generations continue from the backup, so an agent may have other content under a number that is used again.
    Agents drop the objects of a former incarnation, and are sent their whole slice.
    """
    store = Store(settings.database_url)
    try:
        with Session(store.engine) as session:
            head = session.get(Head, 1)
            if head is None:
                sys.exit("kahuna: the database has never been served from; there is nothing that could be restored")
            revision, head.incarnation = head.revision, str(uuid.uuid4())
            session.add(Audit(time=_now(), caller="console", method="restored"))
            session.commit()
    except DBAPIError as error:
        sys.exit(_unusable("used", error))
    finally:
        store.dispose()
    sys.stdout.write(
        f"The store has a new incarnation at revision {revision}: once Kahuna serves, each agent is sent its whole "
        "slice; nothing on its host is touched.\n"
    )


def _now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def _unusable(how: str, error: DBAPIError) -> str:
    return f"kahuna: the database can't be {how}: {error.orig}; is this the configuration that Kahuna runs with?"
