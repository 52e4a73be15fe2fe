"""The lock of an agent's state directory: one agent at a time works from it."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path


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
