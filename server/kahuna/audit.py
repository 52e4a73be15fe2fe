"""Shows the audit trail to whoever may read the database."""

import json
import sys
import time
from datetime import UTC, datetime

from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, create_engine, select

from kahuna.settings import Settings
from kahuna.store.audit import Audit
from kahuna.store.retention import DAY_US


def show(settings: Settings, target: str, days: int) -> None:
    """Prints it, also while Kahuna runs. Raises SystemExit when there is no database yet."""
    since = time.time_ns() // 1000 - days * DAY_US
    wanted = select(Audit).where(Audit.time >= since).order_by(col(Audit.id))
    if target:
        wanted = wanted.where(Audit.target == target)
    with Session(create_engine(settings.database_url)) as session:
        try:
            rows = session.exec(wanted)
        except OperationalError as error:
            sys.exit(
                f"kahuna: the database can't be read: {error.orig}; is this the configuration that Kahuna runs with?"
            )
        for row in rows:
            said = {name: getattr(row, name) for name in Audit.model_fields if name not in ("id", "time")}
            when = datetime.fromtimestamp(row.time / 1_000_000, UTC).isoformat()
            line = {"time": when, **{name: value for name, value in said.items() if value}}
            sys.stdout.write(json.dumps(line) + "\n")
