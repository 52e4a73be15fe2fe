"""Messages as the contract wants them: its rules and defaults, in nested messages, lists and maps, too.

`meta`, the server's part of a resource, is left alone here.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from kahuna.domain import rules
from kahuna.domain.errors import Refusal, Violation
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
    _normalize(described(message), message)


def described(message: Message) -> contract.Message:
    """What the contract says of a message of its own. Raises KeyError for any other."""
    return contract.load().messages[message.DESCRIPTOR.full_name]


def _refuse(violations: list[Violation]) -> None:
    if not violations:
        return
    reason = "NOT_SERVED" if any(isinstance(violation, _NotServed) for violation in violations) else "INVALID_ARGUMENT"
    said = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    raise Refusal(reason, said, violations=violations)


def _violations(
    about: contract.Message, message: Message, above: str, before: Message | None, *, within_resources: bool = True
) -> Iterator[Violation]:
    for field in about.fields.values():
        if field.output_only or field.name == META or (before is not None and _is_same(message, before, field)):
            continue
        if not _is_set(message, field):
            if field.required:
                yield Violation(contract.place(above, field.name), "is required")
        elif field.not_served:
            yield _NotServed(contract.place(above, field.name), "is not served yet; leave it out")
        elif within_resources or not _is_resource(about, field):
            yield from _broken(about, message, field, above, before)
    for oneof in about.oneofs.values():
        was_set = before is None or before.WhichOneof(oneof.name)
        if oneof.required and was_set and not message.WhichOneof(oneof.name):
            yield Violation(contract.place(above, oneof.name), f"one of {', '.join(oneof.fields)} is required")


def _is_same(message: Message, before: Message, field: contract.Field) -> bool:
    same: bool = getattr(message, field.name) == getattr(before, field.name)
    return same and _is_set(message, field) == _is_set(before, field)


def _is_set(message: Message, field: contract.Field) -> bool:
    return message.HasField(field.name) if field.presence else bool(getattr(message, field.name))


def _is_resource(about: contract.Message, field: contract.Field) -> bool:
    part = about.parts.get(field.name)
    return part is not None and META in part.fields


def _broken(
    about: contract.Message, message: Message, field: contract.Field, above: str, before: Message | None
) -> Iterator[Violation]:
    """What is wrong with a field that is set, and with what is in it."""
    rule, count = field.rule, len(getattr(message, field.name)) if field.many else 1
    if field.many and rule.max_items and count > rule.max_items:
        yield Violation(contract.place(above, field.name), f"has {count} elements, {rule.max_items} at most")
    if field.many and (field.ref or rule.unique_by):
        yield from _repeated(message, field, above)
    part = about.parts.get(field.name)
    of_keys = rule.keys if rule.HasField("keys") else rule
    for key, value in _looked_at(message, field):
        reasons = [f"its name {reason}" for reason in rules.broken(of_keys, key)] if field.is_map else []
        if field.type == "enum":
            said = _values(field.type_name).get(value)
            if said is None:
                reasons.append(f"{value} is none of its values")
            elif said.not_served:
                served = [
                    each.name for each in _values(field.type_name).values() if each.number and not each.not_served
                ]
                reason = f"{said.name} is not served yet; use {' or '.join(served)}"
                yield _NotServed(contract.place(above, field.name, key), reason)
        if part is None:
            reasons += rules.broken(rule, value)
        if reasons or part is not None:
            here = contract.place(above, field.name, key)
            yield from (Violation(here, reason) for reason in reasons)
            if part is not None:
                known = before is not None and key is None and before.HasField(field.name)
                yield from _violations(part, value, here, getattr(before, field.name) if known else None)


def _looked_at(message: Message, field: contract.Field) -> Iterator[tuple[contract.Key, Any]]:
    """What a field holds; of what is too long, no more than may be there: somebody may send any number."""
    return islice(contract.values(message, field), field.rule.max_items or None)


def _repeated(message: Message, field: contract.Field, above: str) -> Iterator[Violation]:
    """What of a list or map is there twice, by its field that must differ, or names nothing."""
    by, seen = field.rule.unique_by, dict[Any, str]()
    for key, one in _looked_at(message, field):
        value, here = getattr(one, by) if by else one, contract.place(above, field.name, key)
        if not value:  # in a part, what must be there is said of the part
            yield from [Violation(here, "names nothing")] if field.ref else []
        elif value in seen and field.ref:
            yield Violation(contract.place(above, field.name), "names the same thing twice")
            return
        elif value in seen:
            yield Violation(f"{here}.{by}", f"is that of {seen[value]}, too")
        seen.setdefault(value, here)


@cache
def _values(enum: str) -> Mapping[int, contract.Value]:
    return {value.number: value for value in contract.load().enums[enum]}


def _normalize(about: contract.Message, message: Message) -> None:
    for field in about.fields.values():
        if field.output_only or field.name == META:
            continue
        if field.default_value and not _is_set(message, field):
            ParseDict({field.name: field.default_value}, message)
        elif field.rule.mac and not field.many and _is_set(message, field):
            setattr(message, field.name, getattr(message, field.name).lower())
        elif field.name in about.parts:
            for _, part in contract.values(message, field):
                _normalize(about.parts[field.name], part)
