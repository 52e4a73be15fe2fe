"""Tokens of the metadata service, and the key they are signed with."""

import base64
import stat
from pathlib import Path

import pytest

from agent_kaktus.metadata.tokens import Tokens, load_key

TOKENS = Tokens(b"k" * 32)


def test_one_counts_for_its_machine_until_its_time_is_up() -> None:
    token = TOKENS.issue("web", 60, now=1000)
    assert TOKENS.is_valid(token, "web", 1000)
    assert TOKENS.is_valid(token, "web", 1059)
    assert not TOKENS.is_valid(token, "web", 1060)
    assert not TOKENS.is_valid(token, "db", 1000)


def test_one_counts_still_when_the_agent_was_restarted_and_on_no_other_host() -> None:
    token = TOKENS.issue("web", 60, now=1000)
    assert Tokens(b"k" * 32).is_valid(token, "web", 1000)
    assert not Tokens(b"x" * 32).is_valid(token, "web", 1000)


def test_a_later_time_can_not_be_written_into_one() -> None:
    sooner, later = (
        base64.urlsafe_b64decode(TOKENS.issue("web", lifetime, now=1000) + "==") for lifetime in (60, 6000)
    )
    assert TOKENS.is_valid(base64.urlsafe_b64encode(sooner).decode(), "web", 1000)
    assert not TOKENS.is_valid(base64.urlsafe_b64encode(later[:8] + sooner[8:]).decode(), "web", 1000)


@pytest.mark.parametrize("token", ["", "x", "====", "AAAA", "\xff" * 54, "A" * 54, "A" * 8000])
def test_whatever_else_is_none(token: str) -> None:
    assert not TOKENS.is_valid(token, "web", 0)


def test_the_key_is_the_agents_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    drawn = load_key(path)
    assert len(drawn) == 32
    assert load_key(path) == drawn
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_spoilt_key_is_drawn_anew(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"")
    assert len(load_key(path)) == 32
