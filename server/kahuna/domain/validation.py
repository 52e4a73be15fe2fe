"""Messages as the contract wants them: its rules and defaults, in nested messages, lists and maps, too.

`meta`, the server's part of a resource, is left alone here.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from kahuna.domain import rules
from kahuna.domain.errors import Violation, on_fields
from kowa import contract

META = "meta"


class _NotServed(Violation):
    """A field that nothing acts on yet."""


def check_request(request: Message) -> None:
    """Raises Refusal with every violation of a request's own fields, not of a resource in it."""
    _refuse(list(_violations(described(request), request, "", None, within_resources=False)))


def check_resource(resource: Message, before: Message | None = None) -> None:
    """Raises Refusal with every violation of a resource as it shall be stored.

    A field that stays as it was before is let be: an earlier version may have taken what is refused today.
    """
    _refuse(list(_violations(described(resource), resource, "", before)))


def normalize(message: Message) -> None:
    """Fills in what was left out and has a default in the contract; writes hardware addresses in one way."""
    for about, part in with_parts(described(message), message):
        for field in about.fields.values():
            if field.output_only or field.name == META:
                continue
            if field.default_value and not _is_set(part, field):
                ParseDict({field.name: field.default_value}, part)
            elif field.rule.mac and not field.is_collection and _is_set(part, field):
                setattr(part, field.name, getattr(part, field.name).lower())


def described(message: Message) -> contract.Message:
    """What the contract says of a message of its own. Raises KeyError for any other."""
    return contract.load().messages[message.DESCRIPTOR.full_name]


def with_parts(about: contract.Message, message: Message) -> Iterator[tuple[contract.Message, Message]]:
    """A message and all in it but the server's, each with what the contract says of it."""
    yield about, message
    for field in about.fields.values():
        if field.name in about.submessages and not field.output_only and field.name != META:
            for _, part in contract.values(message, field):
                yield from with_parts(about.submessages[field.name], part)


def _refuse(violations: list[Violation]) -> None:
    if violations:
        not_served = any(isinstance(violation, _NotServed) for violation in violations)
        raise on_fields("NOT_SERVED" if not_served else "INVALID_ARGUMENT", violations)


def _violations(
    about: contract.Message, message: Message, above: str, before: Message | None, *, within_resources: bool = True
) -> Iterator[Violation]:
    for field in about.fields.values():
        if field.output_only or field.name == META or (before is not None and _is_same(message, before, field)):
            continue
        if not _is_set(message, field):
            if field.required:
                yield Violation(contract.field_path(above, field.name), "is required")
        elif field.not_served:
            yield _NotServed(contract.field_path(above, field.name), "is not served yet; leave it out")
        elif within_resources or not _is_resource(about, field):
            yield from _problems(about, message, field, above, before)
    for oneof in about.oneofs.values():
        was_set = before is None or before.WhichOneof(oneof.name)
        if oneof.required and was_set and not message.WhichOneof(oneof.name):
            yield Violation(contract.field_path(above, oneof.name), f"one of {', '.join(oneof.fields)} is required")


def _is_same(message: Message, before: Message, field: contract.Field) -> bool:
    same: bool = getattr(message, field.name) == getattr(before, field.name)
    return same and _is_set(message, field) == _is_set(before, field)


def _is_set(message: Message, field: contract.Field) -> bool:
    return message.HasField(field.name) if field.presence else bool(getattr(message, field.name))


def _is_resource(about: contract.Message, field: contract.Field) -> bool:
    part = about.submessages.get(field.name)
    return part is not None and META in part.fields


def _problems(
    about: contract.Message, message: Message, field: contract.Field, above: str, before: Message | None
) -> Iterator[Violation]:
    """What is wrong with a field that is set, and with what is in it."""
    rule, part = field.rule, about.submessages.get(field.name)
    if field.is_collection and rule.max_items and len(getattr(message, field.name)) > rule.max_items:
        count = len(getattr(message, field.name))
        yield Violation(contract.field_path(above, field.name), f"has {count} elements, {rule.max_items} at most")
    if field.is_collection and (field.ref or rule.unique_by):
        yield from _repeated(message, field, above)
    for key, value in _values_to_check(message, field):
        here = contract.field_path(above, field.name, key)
        if field.is_map:
            of_names = rules.problems(rule.keys if rule.HasField("keys") else rule, key)
            yield from (Violation(here, f"its name {reason}") for reason in of_names)
        if part is not None:
            known = before is not None and key is None and before.HasField(field.name)
            yield from _violations(part, value, here, getattr(before, field.name) if known else None)
        elif field.type == "enum":
            yield from _unserved(field.type_name, value, here)
        else:
            yield from (Violation(here, reason) for reason in rules.problems(rule, value))


def _unserved(enum: str, number: int, here: str) -> Iterator[Violation]:
    values = contract.load().enums[enum]
    value = next((value for value in values if value.number == number), None)
    if value is None:
        yield Violation(here, f"{number} is none of its values")
    elif value.not_served:
        served = (each.name for each in values if each.number and not each.not_served)
        yield _NotServed(here, f"{value.name} is not served yet; use {' or '.join(served)}")


def _values_to_check(message: Message, field: contract.Field) -> Iterator[tuple[contract.ElementKey, Any]]:
    """What a field holds; of what is too long, no more than may be there: somebody may send any number."""
    return islice(contract.values(message, field), field.rule.max_items or None)


def _repeated(message: Message, field: contract.Field, above: str) -> Iterator[Violation]:
    """What of a list or map is there twice, by its field that must differ, or names nothing."""
    by, seen = field.rule.unique_by, dict[Any, str]()
    for key, one in _values_to_check(message, field):
        value, here = getattr(one, by) if by else one, contract.field_path(above, field.name, key)
        if not value:  # in a part, what must be there is checked in the part
            yield from [Violation(here, "names nothing")] if field.ref else []
        elif value in seen and field.ref:
            yield Violation(contract.field_path(above, field.name), "names the same thing twice")
            return
        elif value in seen:
            yield Violation(f"{here}.{by}", f"is that of {seen[value]}, too")
        seen.setdefault(value, here)
