"""kowactl in this process, against a Kahuna of its own."""

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
from tests.sdk.fixtures import Kahuna, cloud, fake, kahuna, shop

__all__ = ["cloud", "fake", "kahuna", "shop"]

# The machine that most stories are about.
WEB = (
    *("instance", "create", "--project", "shop", "--name", "web", "--zone", "eu/a"),
    *("--vcpus", "2", "--memory", "1536M", "--volumes", "os"),
)

LIMIT = 30.0  # seconds for a process of its own


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


Kowactl = Callable[..., Ran]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Kowactl:
    """Runs a command line as it is."""

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kowactl", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def kowactl(kahuna: Kahuna, bare: Kowactl, monkeypatch: pytest.MonkeyPatch) -> Kowactl:
    """Runs a command line for the Kahuna of the test."""
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", kahuna.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", kahuna.key)
    return partial(bare, "--insecure")


@contextlib.contextmanager
def process(
    *words: str, out: IO[str] | int = subprocess.PIPE, stdin: IO[str] | int | None = None, **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """kowactl as a process of its own, in the environment of the fixture; killed when it takes too long."""
    command = [sys.executable, "-m", "kowactl.main", "--insecure", *words]
    variables, encoding = os.environ | environment, environment.get("PYTHONIOENCODING", "utf-8")
    with subprocess.Popen(
        command, stdin=stdin, stdout=out, stderr=subprocess.PIPE, encoding=encoding, env=variables
    ) as process:
        killer = threading.Timer(LIMIT, process.kill)
        killer.start()
        try:
            yield process
        finally:
            killer.cancel()
            process.kill()


def line(stream: IO[str] | None) -> str:
    """The next line of a process."""
    assert stream
    return stream.readline()
