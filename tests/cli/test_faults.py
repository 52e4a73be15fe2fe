"""What someone at a shell may rely on when things go wrong."""

import json

import pytest
import yaml

from kowa.client import Client
from kowa.v2.meta_pb2 import CHANGE_PUT
from kowa.v2.operation_pb2 import PHASE_SUPERSEDED, PHASE_WAITING
from kowa.v2.region_pb2 import Region, WatchRegionsResponse
from kowactl.kinds import FORMATS
from tests.cli.conftest import Kowactl
from tests.fake_kahuna import FATES, KEY, Fake
from tests.sdk.kahunas import Kahuna


@pytest.fixture
def kahuna(fake: Fake) -> Kahuna:
    """One that fails on purpose."""
    return Kahuna(fake.endpoint, KEY)


def test_waiting_says_what_for_and_how_to_go_on(kowactl: Kowactl, fake: Fake) -> None:
    begun = kowactl("region", "create", "--name", "slow", "--no-wait", "-o", "name")
    operation = begun.err.split()[-1]
    assert begun.err == f"begun; wait for it with: kowactl operation wait {operation}\n"
    late = kowactl("operation", "wait", operation, "--timeout", "0.05s")
    assert late.code == 10
    assert late.err.splitlines()[-1].startswith("kowactl: CreateRegion slow is still under way: ")
    assert f"kowactl operation wait {operation}" in late.err
    fake.finish()
    assert kowactl("operation", "wait", operation).code == 0


def test_what_was_committed_and_then_failed(kowactl: Kowactl) -> None:
    failed = kowactl("region", "create", "--name", "doomed")
    assert (failed.code, failed.out) == (9, "")
    assert failed.err.startswith("kowactl: CreateRegion doomed failed: The fake wants it so")


def test_what_is_full(kowactl: Kowactl) -> None:
    full = kowactl("region", "create", "--name", "too-big")
    assert (full.code, full.err) == (6, "kowactl: No host has room; free some memory\n")


def test_a_change_outlives_a_restart_of_kahuna(kowactl: Kowactl, fake: Fake) -> None:
    fake.unavailable = 2
    assert kowactl("region", "create", "--name", "eu").code == 0


# Clears the screen, names the window, turns the text round, ends a line for some, and is no tag.
EVIL = "a\x1b[2J\x1b]0;b\x07\x9b1m\u202etxt.exe\u2028c\x85d\x7f\U000e0041[/e]é"
SHOWN = r"a\x1b[2J\x1b]0;b\x07\x9b1m\u202etxt.exe\u2028c\x85d\x7f\U000e0041[/e]é"


@pytest.mark.parametrize("form", FORMATS)
def test_what_others_write_reaches_no_terminal_as_it_is(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    region = Region(name=EVIL, description=f"{EVIL}\n{EVIL}")
    kowactl("region", "create", "--name", region.name, "--description", region.description)
    event = WatchRegionsResponse(change=CHANGE_PUT, region=region)
    monkeypatch.setattr(Client, "stream", lambda *_: iter([event]))
    for verb in (["list"], ["get", "it"], ["watch"]):
        shown = kowactl("region", *verb, "-o", form)
        assert shown.code == 0
        assert "txt.exe" in shown.out
        assert all(line.isprintable() for line in shown.out.split("\n"))


def test_what_is_shown_of_it(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", EVIL, "--description", f"{EVIL}\n{EVIL}")
    assert kowactl("region", "list", "-o", "name").out == f"{SHOWN}\n"
    _, row, end = kowactl("region", "list").out.split("\n")
    assert (row.split(), end) == ([SHOWN, rf"{SHOWN}\n{SHOWN}"], "")
    *_, last, under = kowactl("region", "get", "it").out.splitlines()
    assert (last.split(maxsplit=1), under) == (["description", SHOWN], " " * 25 + SHOWN)
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert read(kowactl("region", "get", "it", "-o", form).out)["name"] == EVIL


def test_progress_and_errors_with_it(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FATES, EVIL, PHASE_WAITING)
    late = kowactl("region", "create", "--name", EVIL, "--timeout", "1.2s")
    progress, error, end = late.err.split("\n")
    assert (late.code, progress, end) == (10, f"CreateRegion {SHOWN}: The fake wants it so.", "")
    assert error.startswith(r"kowactl: CreateRegion a\x1b[2J\x1b]0;b\x07")
    assert error.isprintable()


def test_a_change_that_another_overtook(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FATES, "slow", PHASE_SUPERSEDED)
    overtaken = kowactl("region", "create", "--name", "slow")
    assert overtaken.code == 9
    assert overtaken.err.startswith("kowactl: CreateRegion slow superseded: ")
    assert "the newer change goes on: kowactl operation list --filter 'target = " in overtaken.err
