"""Gives a database that was restored from a backup a new incarnation."""

import sys
import time
import uuid

from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from kahuna.settings import Settings
from kahuna.store.audit import Audit
from kahuna.store.database import Store
from kahuna.store.log import Head


def start_new_incarnation(settings: Settings) -> None:
    """Stores and prints a new incarnation. Kahuna must be stopped. Raises SystemExit when there is no database yet.

    Generations count on from the backup, so an agent may hold another content under a number that is given again.
    Agents drop what they hold of another incarnation, and are sent their whole slice.
    """
    store = Store(settings.database_url)
    try:
        with Session(store.engine) as session:
            head = session.get(Head, 1)
            if head is None:
                sys.exit("kahuna: the database has never been served from; there is nothing that could be restored")
            head.incarnation = str(uuid.uuid4())
            session.add(Audit(time=time.time_ns() // 1000, caller="console", method="restored"))
            session.commit()
            said = f"The store has begun a new life at revision {head.revision}"
    except DBAPIError as error:
        sys.exit(f"kahuna: the database can't be used: {error.orig}; is this the configuration that Kahuna runs with?")
    finally:
        store.dispose()
    sys.stdout.write(
        f"{said}: once Kahuna serves, each agent is sent its whole slice; nothing on its host is touched.\n"
    )
