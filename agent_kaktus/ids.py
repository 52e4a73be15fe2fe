"""Ids as the names of files and directories."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID


def is_id(text: str) -> bool:
    """Whether it is an id, written as ids are."""
    try:
        return text == str(UUID(text))
    except ValueError:
        return False


def named_by_id(directory: Path) -> Iterator[Path]:
    """The directories in a directory that an id names. Of a directory that isn't there, none."""
    if directory.is_dir():
        yield from (path for path in directory.iterdir() if is_id(path.name) and _may_be_directory(path))


def _may_be_directory(path: Path) -> bool:
    """What can't be looked at counts as one: whoever reads it hears why not."""
    try:
        return path.is_dir()
    except OSError:
        return True
