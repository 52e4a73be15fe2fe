"""A cpio archive in the format that Linux unpacks at boot (newc). The same files give the same bytes."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path, PurePosixPath


class Archive:
    """The files of a root file system, all owned by root."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes, tuple[int, int]]] = {}

    def directory(self, name: str, permissions: int = 0o755) -> None:
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self._entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b"", (0, 0)))
        self._entries[name] = (stat.S_IFDIR | permissions, b"", (0, 0))

    def file(self, name: str, content: bytes | Path, permissions: int = 0o644) -> None:
        data = content.read_bytes() if isinstance(content, Path) else content
        self._put(name, stat.S_IFREG | permissions, data)

    def program(self, name: str, content: bytes | Path) -> None:
        self.file(name, content, 0o755)

    def link(self, name: str, target: str) -> None:
        self._put(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device."""
        self._put(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def compressed(self) -> bytes:
        """The archive, gzipped; each directory comes before what is in it."""
        named = sorted(self._entries.items(), key=lambda item: PurePosixPath(item[0]).parts)
        parts = [_record(name, *entry, number) for number, (name, entry) in enumerate(named, start=1)]
        return gzip.compress(b"".join([*parts, _record("TRAILER!!!", 0, b"", (0, 0), 0)]), mtime=0)

    def _put(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        parent = str(PurePosixPath(name).parent)
        if parent != "." and parent not in self._entries:
            self.directory(parent)
        self._entries[name] = (mode, data, device)


def _record(name: str, mode: int, data: bytes, device: tuple[int, int], number: int) -> bytes:
    label = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(label), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + label
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
