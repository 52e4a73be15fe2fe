"""An instance's console: output comes at once, keys in order, and the history is limited."""

import asyncio
import os
import subprocess
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_kaktus.compute import console
from kowa.fleet.v1.fleet_pb2 import TerminalSize

from .slices import id_of

TIMEOUT_S = 20


@dataclass
class SerialPort:
    """A serial port as QEMU has one: `tee` echoes what is typed, to the terminal and to the history."""

    history: Path
    terminal: str
    port: int

    async def terminal_path(self) -> str:
        return self.terminal


@pytest.fixture
def serial_port(tmp_path: Path) -> Iterator[SerialPort]:
    """A serial port whose echo runs."""
    port, terminal = os.openpty()
    tty.setraw(terminal)
    serial_port = SerialPort(tmp_path / "web" / "console.log", os.ttyname(terminal), port)
    serial_port.history.parent.mkdir()
    with subprocess.Popen(["tee", "-a", str(serial_port.history)], stdin=port, stdout=port) as running:
        yield serial_port
        running.kill()
    os.close(port)
    os.close(terminal)


async def output_of(serial_port: SerialPort, keys: "asyncio.Queue[bytes | TerminalSize]", count: int) -> bytes:
    """Types the keys, and returns the output once it has `count` bytes."""

    async def queued_keys() -> AsyncIterator[bytes | TerminalSize]:
        while True:
            yield await keys.get()

    typing = asyncio.create_task(console.type_in(queued_keys(), serial_port.terminal_path))
    output = b""
    try:
        async with asyncio.timeout(TIMEOUT_S), aclosing(console.follow(serial_port.history)) as printed:  # type: ignore[type-var]
            async for data in printed:
                output += data
                if len(output) >= count:
                    break
    finally:
        typing.cancel()
    return output


def test_a_paste_arrives_in_order_and_its_output_comes_once(serial_port: SerialPort) -> None:
    paste = b"".join(b"%07d\n" % number for number in range(1 << 13))

    async def scenario() -> None:
        keys: asyncio.Queue[bytes | TerminalSize] = asyncio.Queue()
        keys.put_nowait(TerminalSize(rows=24, columns=80))
        for at in range(0, len(paste), 4096):
            keys.put_nowait(paste[at : at + 4096])
        assert await output_of(serial_port, keys, len(paste)) == paste
        assert termios.tcgetwinsize(serial_port.port) == (24, 80)

    asyncio.run(scenario())


def test_an_echo_does_not_wait_for_the_next_poll(serial_port: SerialPort) -> None:
    async def scenario() -> float:
        keys: asyncio.Queue[bytes | TerminalSize] = asyncio.Queue()
        started = time.monotonic()
        for number in range(20):
            keys.put_nowait(b"x")
            assert await output_of(serial_port, keys, number + 1)
        return (time.monotonic() - started) / 20

    assert asyncio.run(scenario()) < console.POLL_INTERVAL_S / 2  # by an event: the next poll would be later


def test_a_trimmed_history_keeps_its_end_and_no_older_files(tmp_path: Path) -> None:
    folder = tmp_path / id_of("web")
    folder.mkdir()
    (folder / "seed.iso").write_bytes(b"seed")
    (folder / "console.log").write_bytes(b"old" + bytes(console.MAX_HISTORY_BYTES) + b"new")
    for older in ("console.log.0", "console.log.1"):
        (folder / older).write_bytes(bytes(2 * console.MAX_HISTORY_BYTES))
    console.trim_all(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"console.log", "seed.iso"}
    assert (folder / "console.log").stat().st_size == console.KEPT_BYTES
    assert (folder / "console.log").read_bytes().endswith(b"new")
