"""kowactl in this process, against a Kahuna of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kowactl.main import main
from tests.sdk.kahunas import Kahuna, cloud, fake, kahuna, shop

__all__ = ["cloud", "fake", "kahuna", "shop"]


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


Kowactl = Callable[..., Ran]


@pytest.fixture
def kowactl(kahuna: Kahuna, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Kowactl:
    """Runs a command line."""
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", kahuna.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", kahuna.key)

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kowactl", "--insecure", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run
