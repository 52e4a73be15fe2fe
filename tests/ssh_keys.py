"""SSH keys for tests: well-formed, and nobody's."""

import base64
import struct

PRIVATE = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
    "-----END OPENSSH PRIVATE KEY-----\n"
)


def blob(*parts: bytes) -> str:
    """The base64 part of a public key: byte strings, each after its length."""
    return base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()


ED25519 = f"ssh-ed25519 {blob(b'ssh-ed25519', b'k' * 32)}"


def long_key(length: int) -> str:
    """A key of `length` characters, most of them in its comment, four bytes each."""
    return f"{ED25519} ".ljust(length, "😀")
