"""Programs in the background: started, awaited until they serve, ended. For the demo, the benches and the tests."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

START_TIMEOUT_S, END_TIMEOUT_S = 30.0, 15.0
# Below the ports of outgoing connections, which could take one before its program listens.
PORTS = range(20_000, 32_000)


class NotStarted(Exception):
    """A program has ended, or was not ready in time. Its text has the last line of the log."""


def start(
    command: Sequence[str | Path],
    log: Path | None = None,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    own_session: bool = False,
) -> "subprocess.Popen[bytes]":
    """Starts a program in the background; its output is appended to the log, or dropped without one.

    `environment` is added to this process's own. In a session of its own no Ctrl-C reaches the program.
    """
    with contextlib.nullcontext(subprocess.DEVNULL) if log is None else log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=own_session,
        )


def await_ready(
    process: "subprocess.Popen[bytes] | None",
    ready: Callable[[], object],
    name: str,
    log: Path | None = None,
    timeout: float = START_TIMEOUT_S,
) -> None:
    """Returns when a program is ready. Raises NotStarted when it ends first, or is not ready within `timeout` seconds.

    `process` is None for a program that was running already: then only `ready` is checked.
    """

    def ended() -> bool:
        return process is not None and process.poll() is not None

    # A program that ends at once, or leaves a child in its place, may have been ready in between.
    if not wait(lambda: ended() or ready(), timeout) or ended():
        lines = log.read_text(errors="replace").split("\n")[:-1] if log is not None and log.exists() else []
        raise NotStarted(f"{name} did not start; its last output in {log}: {lines[-1] if lines else 'nothing'}")


def end(process: "subprocess.Popen[bytes]", timeout: float = END_TIMEOUT_S) -> bool:
    """Ends a process, by force after `timeout` seconds. Returns whether it ended by itself."""
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], ready: Callable[[], object], name: str, log: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a program during the block, which starts when it is ready."""
    process = start(command, log)
    try:
        await_ready(process, ready, name, log)
        yield process
    finally:
        end(process)


def wait(condition: Callable[[], object], timeout: float, interval: float = 0.05) -> bool:
    """Waits for a condition. Returns whether it is met within `timeout` seconds."""
    try:
        until(condition, timeout=timeout, interval=interval)
    except TimeoutError:
        return False
    return True


def until(condition: Callable[[], T], *, timeout: float = 60, what: str = "", interval: float = 0.02) -> T:
    """Returns the first truthy result of a condition. Raises TimeoutError; `what` names the condition in its text."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what or 'the condition'} was not met within {timeout:g} s; last: {result!r}")
        time.sleep(interval)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a port accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that no program listens on, chosen at random so that parallel runs get different ones."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            return port
