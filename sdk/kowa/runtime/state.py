"""The state directory of an agent, from which one at a time works, and the SQLite files in it."""

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
    """Holds the state directory. Where another process holds it, this one exits with the reason.

    The directory itself is locked: that takes no room on a full disk, and ends with the process, whatever ends it.
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


def _connect(path: Path, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
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
