"""An agent's state directory, which one process at a time may use, and the SQLite files in it."""

import contextlib
import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

log = structlog.get_logger()


@contextlib.contextmanager
def lock_state(state: Path) -> Iterator[None]:
    """Locks the state directory. If another process has locked it, this one exits with the reason.

    The lock is on the directory itself: it takes no space on a full disk, and ends with the process in any case.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another agent uses {state}; stop it first")
    try:
        yield
    finally:
        os.close(descriptor)


def connect(path: Path, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    """Opens a database for this process alone. `prepare` creates the schema and loads the data.

    A damaged file is renamed and replaced by a new one. Raises OperationalError or OSError when a file can't be opened
    though it is intact: the disk is full, or another process has locked it.
    """
    try:
        return _connect(path, prepare)
    except sqlite3.OperationalError:
        raise
    except (sqlite3.DatabaseError, DecodeError) as error:
        damaged = path.with_suffix(".db.damaged")
        log.error("database.damaged", kept_as=str(damaged), reason=str(error))
        path.replace(damaged)
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(path, prepare)


def _connect(path: Path, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # Exclusive locking needs no -shm file, which would not fit on a full disk.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA synchronous = FULL")
        prepare(connection)
    except (sqlite3.Error, DecodeError):
        connection.close()
        raise
    return connection
