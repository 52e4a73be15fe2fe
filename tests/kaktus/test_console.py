"""A machine's console: what it prints, at once and kept up to a bound; keys, in order."""

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

LIMIT = 20  # seconds


@dataclass
class Machine:
    """A serial port as QEMU has one: what is typed at its terminal is echoed there and in the history, by `tee`."""

    history: Path
    terminal: str
    port: int

    async def named(self) -> str:
        """Where its terminal is."""
        return self.terminal


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """One that runs."""
    port, terminal = os.openpty()
    tty.setraw(terminal)
    made = Machine(tmp_path / "web" / "console.log", os.ttyname(terminal), port)
    made.history.parent.mkdir()
    with subprocess.Popen(["tee", "-a", str(made.history)], stdin=port, stdout=port) as running:
        yield made
        running.kill()
    os.close(port)
    os.close(terminal)


async def shown(machine: Machine, keys: "asyncio.Queue[bytes | TerminalSize]", count: int) -> bytes:
    """So much of what it prints while keys are typed."""

    async def typed() -> AsyncIterator[bytes | TerminalSize]:
        while True:
            yield await keys.get()

    typing = asyncio.create_task(console.type_in(typed(), machine.named))
    seen = b""
    try:
        async with asyncio.timeout(LIMIT), aclosing(console.follow(machine.history)) as printed:  # type: ignore[type-var]
            async for data in printed:
                seen += data
                if len(seen) >= count:
                    break
    finally:
        typing.cancel()
    return seen


def test_a_paste_goes_to_the_machine_in_order_and_what_it_prints_comes_once(machine: Machine) -> None:
    paste = b"".join(b"%07d\n" % number for number in range(1 << 13))

    async def story() -> None:
        keys: asyncio.Queue[bytes | TerminalSize] = asyncio.Queue()
        keys.put_nowait(TerminalSize(rows=24, columns=80))
        for at in range(0, len(paste), 4096):
            keys.put_nowait(paste[at : at + 4096])
        assert await shown(machine, keys, len(paste)) == paste
        assert termios.tcgetwinsize(machine.port) == (24, 80)

    asyncio.run(story())


def test_an_echo_is_shown_at_once(machine: Machine) -> None:
    async def story() -> float:
        keys: asyncio.Queue[bytes | TerminalSize] = asyncio.Queue()
        begun = time.monotonic()
        for number in range(20):
            keys.put_nowait(b"x")
            assert await shown(machine, keys, number + 1)
        return (time.monotonic() - begun) / 20

    assert asyncio.run(story()) < 0.03  # seconds; a look every 50 ms would be 50


def test_a_history_keeps_its_end_and_no_older_parts(tmp_path: Path) -> None:
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
