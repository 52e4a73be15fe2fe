"""Generates the platform owner's API key."""

import time
from pathlib import Path

from sqlmodel import Session, delete

from kahuna.security import keys
from kahuna.settings import Settings
from kahuna.store.audit import Audit
from kahuna.store.credential import AdminKey
from kahuna.store.database import Store
from kahuna.store.schema import migrate
from kowa.files import write


def generate(settings: Settings, out: Path) -> None:
    """Writes a new key to a file and its hash to the database, in place of those before. Kahuna must be stopped."""
    store = Store(settings.database_url)
    migrate(store.engine)
    hasher = keys.KeyHasher.from_file(settings.state / "secret.key")
    key = keys.generate(keys.ADMIN)
    draft = out.with_name(out.name + ".drawn")
    write(draft, f"{key.text}\n".encode(), mode=0o600)
    with Session(store.engine) as session:
        session.execute(delete(AdminKey))
        session.add(AdminKey(prefix=key.prefix, digest=hasher.hash(key.text)))
        session.add(Audit(time=time.time_ns() // 1000, caller="console", method="admin-key", target_kind="AdminKey"))
        session.commit()
    store.dispose()
    draft.replace(out)
