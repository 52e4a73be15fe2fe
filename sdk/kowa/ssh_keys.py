"""SSH public keys as lines of authorized_keys: options, type, key and comment."""

import base64
import re

_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File")
# Other formats of public keys, and the options of ssh-keygen that read them.
_FOREIGN = {"---- BEGIN SSH2 PUBLIC": "-i", "-----BEGIN PUBLIC": "-i -m PKCS8", "-----BEGIN RSA PUBLIC": "-i -m PEM"}
_OPTION = r'[A-Za-z0-9-]+(?:="(?:\\"|[^"\\]|\\(?!"))*")?'
_LINE = re.compile(
    rf"[ \t]*(?:{_OPTION}(?:,{_OPTION})*[ \t]+)??((?:ssh|sk|ecdsa)-[a-z0-9@.-]+)[ \t]+([^ \t]+)(?:[ \t].*)?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
# The number of strings after the type's name in a key, by type.
_STRINGS = {
    "ssh-rsa": 2,
    "ssh-dss": 4,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
_ED25519_BYTES = 32


def public_key_problem(text: str) -> str:
    """The problem of a public key and its remedy; empty if the key is valid. A trailing line end is ignored.

    Never repeats the text: it may be a private key.
    """
    line = text.rstrip("\r\n")
    if _PRIVATE.search(text):
        return "is a private key; give the public key, in the file whose name ends in .pub"
    if text.startswith("\ufeff"):
        return "begins with a byte order mark; remove it"
    if flags := next((flags for start, flags in _FOREIGN.items() if text.startswith(start)), ""):
        return f"is a public key in another form; `ssh-keygen {flags} -f FILE` prints it in that of OpenSSH"
    if not line.strip():
        return "is empty"
    if re.search(r"[\r\n]", line):
        return "has several lines; give each key as an element of its own"
    if _CONTROLS.search(line):
        return "holds control characters"
    if line.lstrip().startswith("#"):
        return "is a comment; give a public key"
    found = _LINE.fullmatch(line)
    if not found:
        return "is no SSH public key, such as `ssh-ed25519 AAAA... me@example`"
    return "" if _is_complete(*found.groups()) else "is cut off or damaged; copy the public key again"


def _is_complete(kind: str, encoded: str) -> bool:
    """Checks that a key is of the type before it, and neither too short nor too long."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    strings, offset = list[bytes](), 0
    while offset < len(blob):
        length = int.from_bytes(blob[offset : offset + 4], "big")
        strings.append(blob[offset + 4 : offset + 4 + length])
        offset += 4 + length
    name, *parts = strings or [b""]
    if name != kind.encode() or not parts:
        return False
    if "-cert-v" in kind:  # a certificate, in which numbers follow
        return True
    has_all = offset == len(blob) and len(parts) == _STRINGS.get(kind, len(parts))
    return has_all and (kind != "ssh-ed25519" or len(parts[0]) == _ED25519_BYTES)
