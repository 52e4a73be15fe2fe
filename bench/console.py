"""A key's echo on an instance's console: kowactl in a terminal, Kahuna, the agent and the guest's terminal, and back.

Uses the demo, which it starts, and its instance. The promise is for the whole round trip over loopback.
"""

import contextlib
import io
import os
import pty
import select
import time
from collections.abc import Iterator

from bench.figure import HEADER, Figure, at_most, quantile
from deploy.demo.layout import Layout
from deploy.demo.up import up

KEY_COUNT = 100
ECHO_TIMEOUT_S = 20
PROMISED_MS = 60
KILL_LINE, LEAVE = b"\x15", b"\x1d"


def figures() -> list[Figure]:
    """Milliseconds from a key typed to its echo shown."""
    layout = Layout()
    with contextlib.redirect_stdout(io.StringIO()):
        up(layout)
    with console(layout, "hello") as terminal:
        os.write(terminal, b"\r")
        _read_until(terminal, b"# ")
        # QEMU checks once a second whether its terminal is open, and takes no key before.
        first, *taken = [_echo(terminal, b"abcdefghij"[number % 10 :][:1]) for number in range(KEY_COUNT)]
        os.write(terminal, KILL_LINE)
    return [
        at_most("console, key to echo, p50", quantile(taken, 0.5) * 1e3, "ms", PROMISED_MS),
        at_most("console, first key to echo, once opened", first * 1e3, "ms", 1000 + PROMISED_MS),
        at_most("console, key to echo, p99", quantile(taken, 0.99) * 1e3, "ms", PROMISED_MS),
    ]


@contextlib.contextmanager
def console(layout: Layout, instance: str) -> Iterator[int]:
    """A terminal in which kowactl shows an instance's console."""
    process, terminal = pty.fork()
    if process == 0:
        command = f". '{layout.env}'; exec '{layout.bin}/kowactl' console {instance}"
        os.execvp("bash", ["bash", "-c", command])  # noqa: S606
    try:
        yield terminal
        os.write(terminal, LEAVE)
    finally:
        os.close(terminal)  # which ends the programs in it
        os.waitpid(process, 0)


def _echo(terminal: int, key: bytes) -> float:
    started = time.perf_counter()
    os.write(terminal, key)
    _read_until(terminal, key)
    return time.perf_counter() - started


def _read_until(terminal: int, wanted: bytes) -> None:
    shown = b""
    while wanted not in shown:
        if not select.select([terminal], [], [], ECHO_TIMEOUT_S)[0]:
            raise TimeoutError(f"the console does not show {wanted!r}; it shows {shown!r}")
        shown += os.read(terminal, 4096)


if __name__ == "__main__":
    print(HEADER, *figures(), sep="\n")
