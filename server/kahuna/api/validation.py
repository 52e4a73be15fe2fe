"""The interpreter of the rules in the contract. Runs before any side effect."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message

from kahuna.domain.addresses import why_no_host
from kahuna.domain.errors import Refusal, Violation, quoted
from kahuna.store.resource import CONTRACT
from kowa import contract, formats
from kowa.ssh_keys import why_no_public_key
from kowa.v2 import options_pb2

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def check_request(request: Message) -> None:
    """Raises Refusal INVALID_ARGUMENT with every violation of a request's own fields, not of a resource in it."""
    _raise(list(_fields(request, "", skip_messages=True)))


def check_resource(resource: Message, before: Message | None = None) -> None:
    """Raises Refusal INVALID_ARGUMENT with every violation of a resource as it shall be stored.

    A field that stays as it was before is let be: an earlier version may have taken what is refused today.
    """

    def is_new(violation: Violation) -> bool:
        field = re.split(r"[.\[]", violation.field)[0]
        return before is None or getattr(before, field) != getattr(resource, field)

    _raise([violation for violation in _fields(resource, "") if is_new(violation)])


def clear_outputs(resource: Message) -> None:
    """Forgets what a client sent in fields that are the server's to fill."""
    for field in CONTRACT.messages[resource.DESCRIPTOR.full_name].fields.values():
        if field.output_only:
            resource.ClearField(field.name)


def _raise(violations: list[Violation]) -> None:
    if violations:
        said = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise Refusal("INVALID_ARGUMENT", said, violations=violations)


def _fields(message: Message, path: str, *, skip_messages: bool = False) -> Iterator[Violation]:
    described = CONTRACT.messages.get(message.DESCRIPTOR.full_name)
    if described is None:
        return
    for field in described.fields.values():
        if field.output_only or field.name == "meta":
            continue
        value = getattr(message, field.name)
        here = f"{path}{field.name}"
        if field.required and not _is_set(message, field):
            yield Violation(here, "is required")
        elif field.type == "message" and not field.repeated and not field.is_map:
            if not skip_messages and message.HasField(field.name):
                yield from _fields(value, f"{here}.")
        elif _is_set(message, field):
            yield from _check(field, here, value)


def _is_set(message: Message, field: contract.Field) -> bool:
    if field.presence:
        return message.HasField(field.name)
    return bool(getattr(message, field.name))


def _check(field: contract.Field, path: str, value: Any) -> Iterator[Violation]:
    rule = field.rule
    if field.is_map or field.repeated:
        if rule.max_items and len(value) > rule.max_items:
            yield Violation(path, f"has {len(value)} elements, {rule.max_items} at most")
        if field.ref and len(set(value)) != len(value):
            yield Violation(path, "names the same thing twice")
        for name in value if field.is_map else ():
            for reason in _broken(rule, name):
                yield Violation(f"{path}[{quoted(name)}]", f"has a name that {reason}")
        for key, item in [(quoted(name), item) for name, item in value.items()] if field.is_map else enumerate(value):
            for reason in _broken(rule, item):
                yield Violation(f"{path}[{key}]", reason)
        return
    if field.type == "enum" and CONTRACT.enums.get(field.type_name) is not None:
        known = {item.number for item in CONTRACT.enums[field.type_name].values}
        if value not in known:
            yield Violation(path, f"{value} is none of its values")
    for reason in _broken(rule, value):
        yield Violation(path, reason)


def _broken(rule: options_pb2.Rule, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if rule.max_len and len(value) > rule.max_len:
            yield f"has {len(value)} characters, {rule.max_len} at most"
        for name, holds, reason in _FORMS:
            if getattr(rule, name) and not holds(value):
                yield f"{quoted(value)} {reason}"
        if rule.ssh_public_key and (reason := why_no_public_key(value)):  # not repeated: it may be a private key
            yield reason
    elif isinstance(value, int):
        if rule.HasField("min") and value < rule.min:
            yield f"is {value}, {rule.min} at least"
        if rule.HasField("max") and value > rule.max:
            yield f"is {value}, {rule.max} at most"


def _is_name(value: str) -> bool:
    return 1 <= len(value) <= 255 and not CONTROLS.search(value)


def _is_request_id(value: str) -> bool:
    return 1 <= len(value) <= 64 and not CONTROLS.search(value)


def _is_cidr(value: str) -> bool:
    try:
        return str(ipaddress.IPv4Network(value)) == value
    except ValueError:
        return False


def _is_ip(value: str) -> bool:
    try:
        return not why_no_host(ipaddress.IPv4Network(f"{value}/32"))
    except ValueError:
        return False


_FORMS: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("name", _is_name, "is no name: 1 to 255 characters without control characters"),
    ("dns_label", formats.DNS_LABEL.fullmatch, "is no DNS label: 1 to 63 of a-z, 0-9 and inner hyphens"),
    ("cidr", _is_cidr, "is no IPv4 network like 10.20.0.0/24 without host bits"),
    ("ip", _is_ip, "is no IPv4 address that a host can have"),
    ("mac", formats.MAC.fullmatch, "is no unicast MAC address like 52:54:00:12:34:56"),
    ("sha256", formats.SHA256.fullmatch, "is no SHA-256 checksum of 64 lower-case hexadecimal digits"),
    ("request_id", _is_request_id, "is no request id: 1 to 64 characters without control characters"),
    ("interface", formats.INTERFACE.fullmatch, "is no interface name: 1 to 15 of letters, digits, _ . -"),
)
