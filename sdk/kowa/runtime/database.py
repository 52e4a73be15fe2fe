"""SQLite files of an agent's own. A damaged one is renamed; Kahuna sends again what was in it, or it is missed."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

log = structlog.get_logger()


def connect(path: Path, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """Opens a file, which is this process's alone from then on. `prepare` gives it its form and reads from it.

    Raises OperationalError or OSError when it can't be opened now, though it is good: a full disk, another at work.
    """
    try:
        return _connect(path, prepare)
    except sqlite3.OperationalError:
        raise
    except (sqlite3.DatabaseError, DecodeError) as error:
        damaged = path.with_suffix(".db.damaged")
        log.error("database.damaged", kept_as=str(damaged), reason=str(error))
        path.replace(damaged)
        for beside in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        return _connect(path, prepare)


def _connect(path: Path, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # Without memory shared with others it needs no file beside it, and so no room on a disk that is full.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        prepare(connection)
    except (sqlite3.Error, DecodeError):
        connection.close()
        raise
    return connection
