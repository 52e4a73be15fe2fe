"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

CHUNK = 1 << 18  # bytes read at once; of larger parts malloc keeps megabytes when all are read
PARTIAL = ".part"  # behind the name of a file that is still being written


def partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


def write(path: Path, data: bytes, *, mode: int) -> None:
    new = partial(path)
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    settle(new, path)


def settle(new: Path, path: Path) -> None:
    """Gives a finished file its name, for good; what had it before is no more."""
    sync(new)
    new.replace(path)
    sync(path.parent)


def settle_first(new: Path, path: Path) -> None:
    """Gives a finished file a name that no other has. Raises FileExistsError, and what has it stays as it is."""
    sync(new)
    os.link(new, path)
    new.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file's content, or a directory's entries, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_id(text: str) -> bool:
    try:
        return text == str(UUID(text))
    except ValueError:
        return False


def named_by_id(directory: Path) -> Iterator[Path]:
    """The directories in a directory that an id names. Of a directory that isn't there, none."""
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if is_id(path.name) and _may_be_directory(path))


def _may_be_directory(path: Path) -> bool:
    """What can't be looked at counts as one: whoever reads it is told why not."""
    try:
        return path.is_dir()
    except OSError:
        return True
