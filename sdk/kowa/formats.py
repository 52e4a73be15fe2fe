"""The forms of text in the contract that both ends check: names, devices, hardware addresses, checksums."""

import re

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")  # of Linux: 15 characters at most
MAC = re.compile(r"(?!00(:00){5}$)[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}")  # unicast, and not all zero
SHA256 = re.compile(r"[0-9a-f]{64}")
