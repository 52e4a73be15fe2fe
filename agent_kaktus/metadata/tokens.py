"""Metadata tokens: each contains its expiry, and is signed for one instance. Only the key is stored."""

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from kowa import files

MAX_LIFETIME_S = 21_600
KEY_SIZE = 32
_EXPIRY_SIZE = 8


class Tokens:
    """Issues and checks tokens of one host. Times are seconds of the wall clock, since a token survives a restart."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, instance: str, lifetime: int, now: int) -> str:
        expiry = (now + lifetime).to_bytes(_EXPIRY_SIZE, "big")
        return base64.urlsafe_b64encode(expiry + self._sign(instance, expiry)).rstrip(b"=").decode()

    def is_valid(self, token: str, instance: str, now: int) -> bool:
        """Whether a token was issued here, for this instance, and has not expired."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return False
        expiry, signature = raw[:_EXPIRY_SIZE], raw[_EXPIRY_SIZE:]
        is_ours = hmac.compare_digest(signature, self._sign(instance, expiry))
        return is_ours and now < int.from_bytes(expiry, "big")

    def _sign(self, instance: str, expiry: bytes) -> bytes:
        return hmac.digest(self._key, b"metadata token " + instance.encode() + expiry, hashlib.sha256)


def load_key(path: Path) -> bytes:
    """Reads the key from a file, which is generated at the first call."""
    found = path.read_bytes() if path.exists() else b""
    if len(found) != KEY_SIZE:
        found = secrets.token_bytes(KEY_SIZE)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write(path, found, mode=0o600)
    return found
