"""API keys: 256 random bits after an indexed prefix; the database has only their keyed hashes."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final, Self

from kowa.files import write

# Beginnings of the admin's and the agents' keys, by which secret scanners recognise a leaked one.
ADMIN: Final = "kowa_admin_"
AGENT: Final = "kowa_agent_"


def generate(family: str) -> str:
    """Returns a new key; `family` is ADMIN or AGENT."""
    return f"{family}{secrets.token_hex(6)}_{secrets.token_hex(32)}"


def prefix_of(text: str) -> str:
    """Returns the indexed part of a key; empty if the text is not a key."""
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
        """Returns the keyed hash of a key."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).digest()

    def matches(self, text: str, key_hash: bytes) -> bool:
        """Whether the hash is that of the key, in constant time."""
        return hmac.compare_digest(self.hash(text), key_hash)
