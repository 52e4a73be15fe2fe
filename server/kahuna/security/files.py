"""Secrets on disk: whole or not at all, so that no kill leaves half a key."""

import os
from pathlib import Path


def write(path: Path, content: bytes, mode: int) -> None:
    """In place of what was there."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
