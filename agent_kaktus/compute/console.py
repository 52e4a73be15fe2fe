"""Serial consoles: QEMU appends an instance's output to a file, the history; keys are written to its terminal."""

import asyncio
import contextlib
import os
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import structlog
from asyncinotify import Inotify, Mask

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Keys, Refused
from kowa.runtime.tasks import in_thread

SHOWN_BYTES = 64 << 10  # of the earlier output
MAX_HISTORY_BYTES, KEPT_BYTES = 1 << 20, 512 << 10  # of a longer history the last KEPT_BYTES are kept
POLL_INTERVAL_S = 1.0  # for changes without an event, such as a new folder
TRIM_INTERVAL_S = 10.0

log = structlog.get_logger()


async def follow(history: Path) -> AsyncIterator[bytes]:
    """Yields the end of a history, then new output at once, until closed. Raises Refused when that is not possible."""
    position = max(0, _size(history) - SHOWN_BYTES)
    try:
        inotify = Inotify()
    except OSError as error:
        raise Refused(f"its console can't be followed: {error}; is fs.inotify.max_user_instances used up?") from None
    with inotify:
        while True:
            with contextlib.suppress(OSError):
                inotify.add_watch(history.parent, Mask.MODIFY | Mask.CREATE)
            size = _size(history)
            position = min(position, size)  # after the history was cut, new output is at its end
            if size == position:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await inotify.get()
                continue
            with history.open("rb") as file:
                file.seek(position)
                data = file.read(SHOWN_BYTES)
            position += len(data)
            yield data


async def type_in(keys: Keys, terminal: Callable[[], Awaitable[str]]) -> None:
    """Writes keys to a terminal until they end. Keys for an instance that is off are lost."""
    port = _Port()
    try:
        await port.open(await terminal())
        async for data in keys:
            if isinstance(data, fleet_pb2.TerminalSize):
                port.resize(data)
            elif not await port.write(data):
                await port.open(await terminal())
                await port.write(data)
    finally:
        port.close()


async def trim(instances: Path) -> None:
    """Cuts histories that have grown too long, until cancelled."""
    while True:
        await in_thread(trim_all)(instances)
        await asyncio.sleep(TRIM_INTERVAL_S)


class _Port:
    """The terminal of a serial port. Its output is in the history already, and is discarded."""

    def __init__(self) -> None:
        self._terminal = -1
        self._size: fleet_pb2.TerminalSize | None = None
        self._writable = asyncio.Event()

    async def open(self, path: str) -> None:
        self.close()
        if not path:
            return
        with contextlib.suppress(OSError):
            self._terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            asyncio.get_running_loop().add_reader(self._terminal, self._discard_output)
            if self._size:
                self.resize(self._size)

    def resize(self, size: fleet_pb2.TerminalSize) -> None:
        self._size = size
        with contextlib.suppress(OSError, termios.error):  # no terminal is open
            termios.tcsetwinsize(self._terminal, (size.rows, size.columns))

    async def write(self, data: bytes) -> bool:
        """Writes data, and waits while the terminal is full. Returns whether all of it was written."""
        while data:
            try:
                data = data[os.write(self._terminal, data) :]
            except BlockingIOError:
                self._writable.clear()
                asyncio.get_running_loop().add_writer(self._terminal, self._writable.set)
                await self._writable.wait()
                if self._terminal >= 0:
                    asyncio.get_running_loop().remove_writer(self._terminal)
            except OSError:
                return False
        return True

    def close(self) -> None:
        if self._terminal >= 0:
            asyncio.get_running_loop().remove_reader(self._terminal)
            asyncio.get_running_loop().remove_writer(self._terminal)
            os.close(self._terminal)
            self._terminal = -1
            self._writable.set()

    def _discard_output(self) -> None:
        try:
            ended = not os.read(self._terminal, SHOWN_BYTES)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def trim_all(instances: Path) -> None:
    for older in instances.glob("*/console.log.*"):  # files that libvirt's log daemon, if it is used, has rotated
        with contextlib.suppress(OSError):
            older.unlink()
    for history in instances.glob("*/console.log"):
        with contextlib.suppress(OSError):
            if _size(history) > MAX_HISTORY_BYTES:
                with history.open("r+b") as file:  # in place, since QEMU keeps appending to the open file
                    file.seek(-KEPT_BYTES, os.SEEK_END)
                    kept = file.read()
                    file.seek(0)
                    file.write(kept)
                    file.truncate()
                log.info("console.cut", id=history.parent.name)
