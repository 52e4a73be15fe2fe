"""Filters, orders and pages over the view."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from operator import attrgetter, eq, ge, gt, le, lt, ne
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from kahuna.api.filters import Condition, conditions, names
from kahuna.domain.errors import Refusal, invalid, quoted
from kahuna.store.resource import CONTRACT, meta
from kowa import contract, formats, sizes

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_BYTES = 3 << 20
# Texts are sorted by their beginning, which a page's token holds. Names are never longer.
MAX_SORT_KEY_CHARS = 256
_TIMESTAMP = Timestamp.DESCRIPTOR.full_name
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, ":": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
Predicate = Callable[[Message], bool]
Read = Callable[[Message], Any]
"""What reads a field of a resource."""


def matcher(kind: type[Message], text: str) -> Predicate:
    """A filter as a test of one resource: conditions `field op value` joined by AND; `:` asks what a list or map holds.

    A value of a map is a field of it by its name, `labels.env`; one that is not there is as if empty.

    Raises Refusal on `filter` with what can't be read.
    """
    tests = [_test(kind, each) for each in conditions(text)]
    return lambda resource: all(test(resource) for test in tests)


def sorter(kind: type[Message], text: str) -> list[tuple[Read, bool]]:
    """`order_by` as what reads its fields and whether each runs descending. Raises Refusal on `order_by`."""
    order: dict[str, tuple[Read, bool]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        path, _, direction = part.partition(" ")
        if direction.strip() not in ("", "asc", "desc"):
            raise invalid("order_by", f"{direction.strip()!r} is no direction; use asc or desc")
        field, read = _resolve(kind, path, "order_by")
        if field.is_repeated:
            raise invalid("order_by", f"{path} is a {_list_or_map(field)}; sort by a field with one value")
        order.setdefault(path, (read, direction.strip() == "desc"))
    return list(order.values())


def query_digest(kind: type[Message], filter_: str, order_by: str) -> str:
    """Identifies a list: a page's token is only valid for the same kind, filter and order."""
    asked = json.dumps([kind.DESCRIPTOR.full_name, filter_, order_by])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def page(
    resources: Iterable[Message], order: list[tuple[Read, bool]], size: int, token: str, asked: str
) -> tuple[list[Message], str, int]:
    """One page, the token of the next, and how many there are. A token names the last one seen: no page repeats it.

    `asked` is the list's `query_digest`. Raises Refusal on `page_token` when that comes from another.
    """
    ordered = sorted(resources, key=lambda resource: meta(resource).id)
    for read, descending in reversed(order):
        ordered.sort(key=lambda resource: _sort_key(read(resource)), reverse=descending)
    start = _start(ordered, order, token, asked) if token else 0
    part = _first_that_fit(ordered[start : start + (size or DEFAULT_PAGE_SIZE)])
    more = start + len(part) < len(ordered)
    return part, _encode(part[-1], order, asked) if more else "", len(ordered)


def _first_that_fit(resources: list[Message]) -> list[Message]:
    """The first resources, as many as fit into MAX_PAGE_BYTES; at least one."""
    room = MAX_PAGE_BYTES
    for count, resource in enumerate(resources):
        room -= resource.ByteSize()
        if room < 0:
            return resources[: max(count, 1)]
    return resources


def _start(ordered: list[Message], order: list[tuple[Read, bool]], token: str, asked: str) -> int:
    last = _decode(token)
    id_, keys = last.get("id"), last.get("keys")
    if last.get("of") != asked or not isinstance(id_, str) or not isinstance(keys, list) or len(keys) != len(order):
        raise _foreign_token()

    def after(resource: Message) -> bool:
        for (read, descending), key in zip(order, keys, strict=True):
            mine = _sort_key(read(resource))
            if type(mine) is not type(key):
                raise _foreign_token()
            if mine != key:
                return bool(mine < key if descending else mine > key)
        return meta(resource).id > id_

    return next((index for index, resource in enumerate(ordered) if after(resource)), len(ordered))


def _encode(last: Message, order: list[tuple[Read, bool]], asked: str) -> str:
    token = {"of": asked, "keys": [_sort_key(read(last)) for read, _ in order], "id": meta(last).id}
    return base64.urlsafe_b64encode(json.dumps(token, ensure_ascii=False).encode()).decode()


def _decode(token: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, RecursionError):
        raise _foreign_token() from None
    if not isinstance(found, dict):
        raise _foreign_token()
    return found


def _foreign_token() -> Refusal:
    return invalid("page_token", "is not one that this list returned; start anew")


def _test(kind: type[Message], asked: Condition) -> Predicate:
    path, operator, text = asked.path, asked.operator, asked.value
    field, read = _resolve(kind, path, "filter")
    if field.is_repeated:
        if operator != ":":
            ways = f"{path}.NAME {operator} VALUE, or {path}:NAME" if _is_map(field) else f"{path}:VALUE"
            raise invalid("filter", f"{path} is a {_list_or_map(field)}; ask with {ways}")
        wanted = text if _is_map(field) else _parse(field, path, text)
        return lambda resource: wanted in read(resource)
    described = _described(field)
    # What a reference holds may be asked for by a part of it.
    value = text if operator == ":" and described and described.ref else _parse(field, path, text)
    if operator == ":" and isinstance(value, str):
        return lambda resource: str(value).lower() in str(read(resource)).lower()
    compare = _OPERATORS[operator]
    return lambda resource: compare(_comparable(read(resource)), value)


def _resolve(kind: type[Message], path: str, argument: str) -> tuple[Any, Read]:
    """The field at the end of a path, values or one value, and what reads it.

    Raises Refusal on the argument where there is none.
    """
    descriptor: Any = kind.DESCRIPTOR
    field: Any = None
    parts = names(path) or [path]
    for index, part in enumerate(parts):
        if field is not None and _is_map(field):
            return _value_of_map(field, attrgetter(".".join(parts[:index])), ".".join(parts[index:]))
        if field is not None and field.is_repeated:
            raise invalid(argument, f"{quoted(path)} leads into {field.name}, which holds many")
        field = descriptor.fields_by_name.get(part) if descriptor is not None else None
        if field is None:
            raise invalid(argument, f"{kind.DESCRIPTOR.name} has no field {quoted(path)}")
        descriptor = None if _is_map(field) else field.message_type
    if descriptor is not None and descriptor.full_name != _TIMESTAMP:
        if field.is_repeated:
            raise invalid(argument, f"{path} holds no plain values; nothing can be asked of it")
        inner = ", ".join(descriptor.fields_by_name)
        raise invalid(argument, f"{path} is no value by itself; name one of its fields: {inner}")
    return field, attrgetter(".".join(parts))


def _value_of_map(field: Any, read: Read, name: str) -> tuple[Any, Read]:
    value = field.message_type.fields_by_name["value"]
    return value, lambda resource: read(resource).get(name, value.default_value)


def _is_map(field: Any) -> bool:
    """Whether a field holds plain values by texts."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return False
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    return value.message_type is None and key.type == key.TYPE_STRING


def _list_or_map(field: Any) -> str:
    return "map" if _is_map(field) else "list"


def _parse(field: Any, path: str, text: str) -> Any:
    if field.enum_type is not None:
        return _enum_value(field.enum_type.full_name, path, text)
    if field.message_type is not None:
        moment = Timestamp()
        try:
            moment.FromJsonString(text)
        except ValueError:
            raise invalid("filter", f"{quoted(text)} is no time like 2026-01-31T12:00:00Z") from None
        return moment.ToNanoseconds()
    described = _described(field)
    if described is not None and described.ref:
        return _id(described, path, text)
    if described is not None and described.in_bytes:
        return _bytes(path, text)
    if field.cpp_type == field.CPPTYPE_STRING:
        return text
    if field.cpp_type == field.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise invalid("filter", f"{path} is true or false")
        return text == "true"
    try:
        return int(text)
    except ValueError:
        raise invalid("filter", f"{quoted(text)} is no number, which {path} is") from None


def _enum_value(enum: str, path: str, text: str) -> int:
    """An enum's value by its full name or its short one."""
    values = CONTRACT.enums[enum]
    for value in values:
        if text.lower() in (value.short, value.name.lower()):
            return value.number
    names = ", ".join(value.short for value in values[1:])
    raise invalid("filter", f"{quoted(text)} is no value of {path}; choose of {names}")


def _id(field: contract.Field, path: str, text: str) -> str:
    """What a reference holds; nothing, where it names nothing."""
    if text and not formats.ID.fullmatch(text):
        holds = "ids" if field.repeated else "an id"
        plural = CONTRACT.kinds[field.ref].plural
        raise invalid("filter", f"{path} holds {holds}, not {quoted(text)}; list {plural} to find it")
    return text.lower()


def _bytes(path: str, text: str) -> int:
    try:
        return sizes.parse(text)
    except ValueError as error:
        raise invalid("filter", f"{path}: {quoted(text)} is {error}") from None


def _described(field: Any) -> contract.Field | None:
    """What the contract says of a field, if it is one of its own."""
    message = CONTRACT.messages.get(field.containing_type.full_name)
    return message.fields[field.name] if message else None


def _sort_key(found: Any) -> Any:
    """What a resource is sorted by, of what was read of it."""
    value = _comparable(found)
    return value[:MAX_SORT_KEY_CHARS] if isinstance(value, str) else value


def _comparable(value: Any) -> Any:
    return value.ToNanoseconds() if isinstance(value, Timestamp) else value
