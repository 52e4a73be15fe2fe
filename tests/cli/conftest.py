"""Fixtures that run kowactl, in this process or as its own, against a real or a fake Kahuna."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

import pytest

from kowactl.main import main
from tests.sdk.fixtures import Kahuna, cloud, fake_kahuna, kahuna, wanted_instance

__all__ = ["cloud", "fake_kahuna", "kahuna", "wanted_instance"]

# The instance that most tests use.
WEB = (
    *("instance", "create", "--project", "shop", "--name", "web", "--zone", "eu/a"),
    *("--vcpus", "2", "--memory", "1536M", "--volumes", "os"),
)

PROCESS_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class CommandResult:
    """A command's exit code and output."""

    code: int
    out: str
    err: str


Kowactl = Callable[..., CommandResult]


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Kowactl:
    """Runs kowactl with these arguments only, without setting the environment."""

    def run(*arguments: str) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["kowactl", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return CommandResult(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def kowactl(kahuna: Kahuna, run_command: Kowactl, monkeypatch: pytest.MonkeyPatch) -> Kowactl:
    """Runs kowactl for the test's Kahuna, by its environment variables."""
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", kahuna.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", kahuna.key)
    return partial(run_command, "--insecure")


@contextlib.contextmanager
def process(
    *arguments: str, out: IO[str] | int = subprocess.PIPE, stdin: IO[str] | int | None = None, **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """Runs kowactl as a process, in the environment of the fixture `kowactl`; killed after a timeout."""
    command = [sys.executable, "-m", "kowactl.main", "--insecure", *arguments]
    variables, encoding = os.environ | environment, environment.get("PYTHONIOENCODING", "utf-8")
    with subprocess.Popen(
        command, stdin=stdin, stdout=out, stderr=subprocess.PIPE, encoding=encoding, env=variables
    ) as process:
        killer = threading.Timer(PROCESS_TIMEOUT_S, process.kill)
        killer.start()
        try:
            yield process
        finally:
            killer.cancel()
            process.kill()


def next_line(stream: IO[str] | None) -> str:
    """The next line of a process's output."""
    assert stream
    return stream.readline()
