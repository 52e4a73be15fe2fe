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

START_LIMIT_S, END_LIMIT_S = 30.0, 15.0
# Below those that the kernel gives to outgoing connections, which could take one before its program listens.
PORTS = range(20_000, 32_000)


class NotStarted(Exception):
    """A program has ended, or was not ready in time. Says the last line of its log."""


def start(
    command: Sequence[str | Path],
    log: Path | None = None,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    own_session: bool = False,
) -> "subprocess.Popen[bytes]":
    """Starts a program in the background; what it says is appended to the log, or dropped.

    `environment` is what it has more than this process. In a session of its own no Ctrl-C reaches it.
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
    limit: float = START_LIMIT_S,
) -> None:
    """Returns when it is ready. Raises NotStarted when it ends before, or is not within `limit` seconds.

    No process is one that somebody else started: it is asked only whether it is ready.
    """

    def ended() -> bool:
        return process is not None and process.poll() is not None

    # Who hands over to its child, or ends at once, may have been ready in between.
    if not wait(lambda: ended() or ready(), limit) or ended():
        lines = log.read_text(errors="replace").split("\n")[:-1] if log is not None and log.exists() else []
        raise NotStarted(f"{name} did not start; the last it said in {log}: {lines[-1] if lines else 'nothing'}")


def end(process: "subprocess.Popen[bytes]", limit: float = END_LIMIT_S) -> bool:
    """Ends it, by force after `limit` seconds. Says whether it ended by itself."""
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], ready: Callable[[], object], name: str, log: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that is ready, for the time of the block."""
    process = start(command, log)
    try:
        await_ready(process, ready, name, log)
        yield process
    finally:
        end(process)


def wait(condition: Callable[[], object], limit: float, interval: float = 0.05) -> bool:
    """Whether a condition is met within `limit` seconds."""
    try:
        until(condition, limit=limit, interval=interval)
    except TimeoutError:
        return False
    return True


def until(condition: Callable[[], T], *, limit: float = 60, what: str = "", interval: float = 0.02) -> T:
    """The first truthy answer of a condition. Raises TimeoutError, naming what was waited for."""
    deadline = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what or 'the condition'} was not met within {limit:g} s; last: {answer!r}")
        time.sleep(interval)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody does."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, nor is likely to before the caller does."""
    while True:
        port = random.choice(PORTS)  # noqa: S311 - so that two runs keep apart
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            return port
