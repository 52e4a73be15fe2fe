"""Tokens of the metadata service, and the key they are signed with."""

import base64
import stat
from pathlib import Path

import pytest

from agent_kaktus.metadata.tokens import Tokens, load_key

TOKENS = Tokens(b"k" * 32)


def test_a_token_is_valid_for_its_instance_until_it_expires() -> None:
    token = TOKENS.issue("web", 60, now=1000)
    assert TOKENS.is_valid(token, "web", 1000)
    assert TOKENS.is_valid(token, "web", 1059)
    assert not TOKENS.is_valid(token, "web", 1060)
    assert not TOKENS.is_valid(token, "db", 1000)


def test_a_token_is_valid_after_a_restart_and_only_on_its_host() -> None:
    token = TOKENS.issue("web", 60, now=1000)
    assert Tokens(b"k" * 32).is_valid(token, "web", 1000)
    assert not Tokens(b"x" * 32).is_valid(token, "web", 1000)


def test_the_expiry_of_a_token_can_not_be_forged() -> None:
    sooner, later = (
        base64.urlsafe_b64decode(TOKENS.issue("web", lifetime, now=1000) + "==") for lifetime in (60, 6000)
    )
    assert TOKENS.is_valid(base64.urlsafe_b64encode(sooner).decode(), "web", 1000)
    assert not TOKENS.is_valid(base64.urlsafe_b64encode(later[:8] + sooner[8:]).decode(), "web", 1000)


@pytest.mark.parametrize("token", ["", "x", "====", "AAAA", "\xff" * 54, "A" * 54, "A" * 8000])
def test_malformed_tokens_are_invalid(token: str) -> None:
    assert not TOKENS.is_valid(token, "web", 0)


def test_the_key_is_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    generated = load_key(path)
    assert len(generated) == 32
    assert load_key(path) == generated
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_key_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"")
    assert len(load_key(path)) == 32
