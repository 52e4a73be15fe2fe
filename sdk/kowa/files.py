"""Atomic files: they appear whole or not at all, and survive a power cut."""

import os
from pathlib import Path

DRAFT_SUFFIX = ".part"  # of a file that is still being written


def draft_of(path: Path) -> Path:
    """The path that a file is written to before it gets its own."""
    return path.with_name(path.name + DRAFT_SUFFIX)


def write(path: Path, data: bytes, *, mode: int) -> None:
    """Writes or replaces a file. When it raises OSError, the old file is unchanged."""
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def publish_new(draft: Path, path: Path) -> None:
    """Gives a finished file its name. Raises FileExistsError, changing nothing, when another file has the name."""
    sync(draft)
    os.link(draft, path)
    draft.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file's content, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
