"""API keys: 256 random bits behind an indexed prefix; the database has their keyed hashes only."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final, Self

from kowa.files import write

# What keys of the admin and of agents begin with, so that a leaked one is recognised.
ADMIN: Final = "kowa_admin_"
AGENT: Final = "kowa_agent_"


def generate(family: str) -> str:
    """A new key; `family` is ADMIN or AGENT."""
    return f"{family}{secrets.token_hex(6)}_{secrets.token_hex(32)}"


def prefix_of(text: str) -> str:
    """The part of a key that finds it, or nothing when it is no key."""
    prefix, _, secret = text.rpartition("_")
    return prefix if secret and prefix.startswith((ADMIN, AGENT)) else ""


class KeyHasher:
    """Hashes keys with a secret of this platform's own, so that a stolen database opens nothing."""

    def __init__(self, secret: bytes) -> None:
        assert len(secret) >= 32
        self._secret = secret

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Reads the secret, generating it first if there is none (mode 0600)."""
        if not path.exists():
            write(path, secrets.token_bytes(32), mode=0o600)
        return cls(path.read_bytes())

    def hash(self, text: str) -> bytes:
        """The keyed hash of a key."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).digest()

    def matches(self, text: str, key_hash: bytes) -> bool:
        """Whether the hash is that of the key, in constant time."""
        return hmac.compare_digest(self.hash(text), key_hash)
