"""Text formats that all programs share: ids, names, interfaces, hardware addresses, checksums; and quoting."""

import re
from typing import Final

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # of Linux: 15 characters at most
MAC = re.compile(r"(?!00(:00){5}$)[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}")  # unicast, and not all zero
LABEL_NAME = re.compile(r"[A-Za-z0-9._/-]{1,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")

MAX_QUOTED: Final = 64  # characters of a received text that a message repeats; an id has 36


def quoted(text: str) -> str:
    """A received text as messages repeat it: shortened and in quotes."""
    return repr(shortened(text))


def shortened(text: str) -> str:
    """The beginning of a text of any length."""
    return text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 3]}..."


def snake(name: str) -> str:
    """`AgentToken` as `agent_token`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
