"""What someone at a shell may rely on when things go wrong."""

import pytest

from tests.cli.conftest import Kowactl
from tests.fake_kahuna import KEY, Fake
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
