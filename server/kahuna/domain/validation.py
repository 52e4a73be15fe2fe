"""Checks messages against the contract's rules and fills in its defaults, also in nested messages, lists and maps.

`meta`, the server's part of a resource, is skipped.
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
    """A violation: a field or value that this version does not support yet."""


def check_request(request: Message) -> None:
    """Raises Refusal with every violation in a request's own fields; a resource in it is checked apart."""
    _refuse(list(_violations(schema_of(request), request, "", None, within_resources=False)))


def check_resource(resource: Message, before: Message | None = None) -> None:
    """Raises Refusal with every violation in a resource that is about to be stored.

    A field with the value it had before is not checked: an earlier version may have accepted what is refused today.
    """
    _refuse(list(_violations(schema_of(resource), resource, "", before)))


def status_problem(resource: Message) -> str:
    """The first violation in what an agent reports of a resource, its status and conditions, as text; empty if none."""
    schema = schema_of(resource)
    reported = _reported_problems(schema, resource)
    return next((f"{problem.field} {problem.description}" for problem in reported), "")


def normalize(message: Message) -> None:
    """Sets omitted fields to their defaults in the contract, and writes hardware addresses in lower case."""
    for schema, part in each_message(schema_of(message), message):
        for field in schema.fields.values():
            if field.output_only or field.name == META:
                continue
            if field.default_value and not _is_set(part, field):
                ParseDict({field.name: field.default_value}, part)
            elif field.rule.mac and not field.is_collection and _is_set(part, field):
                setattr(part, field.name, getattr(part, field.name).lower())


def schema_of(message: Message) -> contract.Message:
    """The description of a message's type in the contract. Raises KeyError for a message of another package."""
    return contract.load().messages[message.DESCRIPTOR.full_name]


def each_message(schema: contract.Message, message: Message) -> Iterator[tuple[contract.Message, Message]]:
    """Yields a message and all messages in it, except those that only the server fills, each with its schema."""
    yield schema, message
    for field in schema.fields.values():
        if field.name in schema.submessages and not field.output_only and field.name != META:
            for _, part in contract.values(message, field):
                yield from each_message(schema.submessages[field.name], part)


def _refuse(violations: list[Violation]) -> None:
    if violations:
        not_served = any(isinstance(violation, _NotServed) for violation in violations)
        raise on_fields("NOT_SERVED" if not_served else "INVALID_ARGUMENT", violations)


def _violations(
    schema: contract.Message, message: Message, parent: str, before: Message | None, *, within_resources: bool = True
) -> Iterator[Violation]:
    for field in schema.fields.values():
        if field.output_only or field.name == META or (before is not None and _is_same(message, before, field)):
            continue
        if not _is_set(message, field):
            if field.required:
                yield Violation(contract.field_path(parent, field.name), "is required")
        elif field.not_served:
            yield _NotServed(contract.field_path(parent, field.name), "is not served yet; leave it out")
        elif within_resources or not _is_resource(schema, field):
            yield from _field_problems(schema, message, field, parent, before)
    for oneof in schema.oneofs.values():
        was_set = before is None or before.WhichOneof(oneof.name)
        if oneof.required and was_set and not message.WhichOneof(oneof.name):
            yield Violation(contract.field_path(parent, oneof.name), f"one of {', '.join(oneof.fields)} is required")


def _reported_problems(schema: contract.Message, resource: Message) -> Iterator[Violation]:
    head = schema.submessages[META]
    yield from _field_problems(head, resource.meta, head.fields["conditions"], META, None)  # type: ignore[attr-defined]
    status = schema.fields.get("status")
    if status is not None and _is_set(resource, status):
        yield from _field_problems(schema, resource, status, "", None)


def _is_same(message: Message, before: Message, field: contract.Field) -> bool:
    same: bool = getattr(message, field.name) == getattr(before, field.name)
    return same and _is_set(message, field) == _is_set(before, field)


def _is_set(message: Message, field: contract.Field) -> bool:
    return message.HasField(field.name) if field.presence else bool(getattr(message, field.name))


def _is_resource(schema: contract.Message, field: contract.Field) -> bool:
    part = schema.submessages.get(field.name)
    return part is not None and META in part.fields


def _field_problems(
    schema: contract.Message, message: Message, field: contract.Field, parent: str, before: Message | None
) -> Iterator[Violation]:
    """Yields the violations of a field that is set, and of its elements."""
    rule, part = field.rule, schema.submessages.get(field.name)
    if field.is_collection and rule.max_items and len(getattr(message, field.name)) > rule.max_items:
        count = len(getattr(message, field.name))
        yield Violation(contract.field_path(parent, field.name), f"has {count} elements, {rule.max_items} at most")
    if field.is_collection and (field.ref or rule.unique_by):
        yield from _duplicates(message, field, parent)
    for key, value in _values_to_check(message, field):
        path = contract.field_path(parent, field.name, key)
        if field.is_map:
            name_problems = rules.problems(rule.keys if rule.HasField("keys") else rule, key)
            yield from (Violation(path, f"its name {reason}") for reason in name_problems)
        if part is not None:
            was_set = before is not None and key is None and before.HasField(field.name)
            yield from _violations(part, value, path, getattr(before, field.name) if was_set else None)
        elif field.type == "enum":
            yield from _enum_problems(field.type_name, value, path)
        else:
            yield from (Violation(path, reason) for reason in rules.problems(rule, value))


def _enum_problems(enum: str, number: int, path: str) -> Iterator[Violation]:
    values = contract.load().enums[enum]
    value = next((value for value in values if value.number == number), None)
    if value is None:
        yield Violation(path, f"{number} is none of its values")
    elif value.not_served:
        served = (each.name for each in values if each.number and not each.not_served)
        yield _NotServed(path, f"{value.name} is not served yet; use {' or '.join(served)}")


def _values_to_check(message: Message, field: contract.Field) -> Iterator[tuple[contract.ElementKey, Any]]:
    """The elements of a field, at most as many as are allowed: a client may send any number."""
    return islice(contract.values(message, field), field.rule.max_items or None)


def _duplicates(message: Message, field: contract.Field, parent: str) -> Iterator[Violation]:
    """Yields elements of a list or map that occur twice, compared by `unique_by` if it is set, and empty references."""
    key_field, seen = field.rule.unique_by, dict[Any, str]()
    for key, element in _values_to_check(message, field):
        value = getattr(element, key_field) if key_field else element
        path = contract.field_path(parent, field.name, key)
        if not value:  # a missing key field is reported with the element's own fields
            yield from [Violation(path, "names nothing")] if field.ref else []
        elif value in seen and field.ref:
            yield Violation(contract.field_path(parent, field.name), "names the same thing twice")
            return
        elif value in seen:
            yield Violation(f"{path}.{key_field}", f"is that of {seen[value]}, too")
        seen.setdefault(value, path)
