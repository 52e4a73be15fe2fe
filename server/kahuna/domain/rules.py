"""Checks of single values against the rules of the contract, with the texts of their violations."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kahuna.domain.addresses import reserved_range
from kahuna.domain.errors import quoted
from kowa import formats
from kowa.ssh_keys import public_key_problem
from kowa.v2 import options_pb2

# Beginnings of user data in base64: #cloud-config, #!/, #include, MIME's headers, gzip.
_BASE64_STARTS = ("I2Nsb3Vk", "IyEv", "IyEg", "I2luY2x1ZGU", "Q29udGVudC1UeXBl", "TUlNRS1WZXJzaW9u", "H4sI")
_PORTS = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")
_LAST_PORT = 65535
_MAX_HOST_NAME = 253
_IPV4_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_FAMILIES: Mapping[int, tuple[tuple[int, ...], str, str]] = {
    # IP versions, and how a network and an address are called
    options_pb2.FAMILY_IPV4: ((4,), "IPv4 network like 10.20.0.0/24", "IPv4 address"),
    options_pb2.FAMILY_IPV6: ((6,), "IPv6 network like 2001:db8::/64", "IPv6 address"),
    options_pb2.FAMILY_ANY: ((4, 6), "IP network like 10.20.0.0/24 or 2001:db8::/64", "IP address"),
}


def problems(rule: options_pb2.Rule, value: Any) -> Iterator[str]:
    """Yields each violation as text that follows its field's name. `validation` checks the rules of lists and maps."""
    for option, bound in rule.ListFields():
        check = CHECKS.get(option.name)
        if check and (reason := check(value, bound)):
            yield reason


def _max_len(value: Any, most: int) -> str:
    unit = "bytes" if isinstance(value, bytes) else "characters"
    return f"has {len(value)} {unit}, {most} at most" if len(value) > most else ""


def _cidr(value: str, family: int) -> str:
    versions, noun, _ = _FAMILIES[family]
    reason = f"{quoted(value)} is no {noun} without host bits"
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return reason
    if network.version not in versions or getattr(network.network_address, "scope_id", None):
        return reason
    if network.prefixlen >= _IPV4_MAPPED.prefixlen and network.overlaps(_IPV4_MAPPED):
        return f"{reason}: it holds IPv4 addresses; write them as an IPv4 network"
    # Only one spelling is accepted, so that clients read back what they sent and filters find it.
    return "" if str(network) == value else f"{reason}; write {network}"


def _ip(value: str, family: int) -> str:
    versions, _, noun = _FAMILIES[family]
    reason = f"{quoted(value)} is no {noun} that a host can have"
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return reason
    if address.version not in versions or getattr(address, "scope_id", None):
        return reason
    if reserved := reserved_range(ipaddress.ip_network(address)):
        return f"{reason}: it is in {reserved}"
    return "" if str(address) == value else f"write {address} instead of {quoted(value)}"


def _ports(value: str, _: bool) -> str:
    found = _PORTS.fullmatch(value)
    first, last = (int(port or found[1]) for port in found.groups()) if found else (0, 0)
    ordered = first < last if found and found[2] else first == last
    if found and ordered and last <= _LAST_PORT:
        return ""
    return f"{quoted(value)} is no port or range of ports of 1 to {_LAST_PORT}, such as 443 or 8000-8080"


def _is_host_name(value: str) -> bool:
    labels = value.split(".")
    # Resolvers take a name that ends in a number for an address.
    return len(value) <= _MAX_HOST_NAME and not labels[-1].isdecimal() and all(map(formats.DNS_LABEL.fullmatch, labels))


def _is_text(least: int, most: int) -> Callable[[str], bool]:
    return lambda value: least <= len(value) <= most and not formats.CONTROLS.search(value)


def _user_data(value: str) -> str:
    """Refuses user data that a guest would silently ignore."""
    if value.startswith("\ufeff"):
        return "begins with a byte order mark, so guests would ignore it; remove the mark"
    return "is in base64; give it as it is, uncompressed" if value.startswith(_BASE64_STARTS) else ""


def _form(is_valid: Callable[[str], object], fault: str) -> Callable[[Any, Any], str]:
    return lambda value, _: "" if is_valid(value) else f"{quoted(value)} is {fault}"


CHECKS: Mapping[str, Callable[[Any, Any], str]] = {
    "name": _form(_is_text(1, 255), "no name: 1 to 255 characters without control characters"),
    "dns_label": _form(formats.DNS_LABEL.fullmatch, "no DNS label: 1 to 63 of a-z, 0-9 and inner hyphens"),
    "host_name": _form(_is_host_name, "no host name like www.example.net, in lower case"),
    "max_len": _max_len,
    "min": lambda value, least: f"is {value}, {least} at least" if not value >= least else "",  # also NaN
    "max": lambda value, most: f"is {value}, {most} at most" if not value <= most else "",
    "cidr": _cidr,
    "ip": _ip,
    "ports": _ports,
    "mac": _form(formats.MAC.fullmatch, "no unicast MAC address like 52:54:00:12:34:56"),
    "sha256": _form(formats.SHA256.fullmatch, "no SHA-256 checksum of 64 lower-case hexadecimal digits"),
    "interface": _form(formats.INTERFACE.fullmatch, "no interface name: 1 to 15 of letters, digits, _ . -"),
    "label_name": _form(formats.LABEL_NAME.fullmatch, "no label's name: 1 to 63 of letters, digits, . _ - /"),
    "label_value": _form(_is_text(0, 255), "no label's value: at most 255 characters without control characters"),
    "request_id": _form(_is_text(1, 64), "no request id: 1 to 64 characters without control characters"),
    "user_data": lambda value, _: _user_data(value),
    "ssh_public_key": lambda value, _: public_key_problem(value),  # never quoted: it may be a private key
}
