"""Filters, orders and pages over the view."""

import base64
import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from operator import attrgetter, eq, ge, gt, le, lt, ne
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from kahuna.api.filters import Condition, conditions, names
from kahuna.domain.errors import invalid, quoted
from kahuna.store.resource import CONTRACT, meta
from kowa import contract, formats, sizes

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_BYTES = 3 << 20
# Texts are sorted by so much of their beginning, which a page's token has to contain. No name is longer.
MAX_SORT_KEY_CHARS = 256
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, ":": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_EMPTY = {"string": "", "bool": False}
Predicate = Callable[[Message], bool]
Read = Callable[[Message], Any]
"""Reads a field of a resource."""


def matcher(kind: contract.Message, text: str) -> Predicate:
    """Compiles a filter into a predicate: conditions `field op value` joined by AND; `:` searches a list or map.

    A path like `labels.env` is the value of a map; one that is missing counts as empty.

    Raises Refusal on `filter` for text that can't be parsed.
    """
    tests = [_test(kind, each) for each in conditions(text)]
    return lambda resource: all(test(resource) for test in tests)


def page(kind: contract.Message, resources: Iterable[Message], request: Any) -> tuple[list[Message], str, int]:
    """Applies a list request to resources sorted by id: returns a page, the next page's token, and the total.

    A token names the last resource of its page, so that the next page does not repeat it. Raises Refusal for a field
    that can't be parsed, and for the token of a list with another kind, filter or order.
    """
    matches, order = matcher(kind, request.filter), _order(kind, request.order_by)
    ordered = [resource for resource in resources if matches(resource)]
    for read, descending in reversed(order):
        ordered.sort(key=read, reverse=descending)
    query = json.dumps([kind.name, request.filter, request.order_by]).encode()
    digest = hashlib.sha256(query).hexdigest()[:16]
    start = bisect_left(ordered, True, key=_is_after(request.page_token, order, digest)) if request.page_token else 0
    part = ordered[start : start + (request.page_size or DEFAULT_PAGE_SIZE)]
    sizes_so_far = accumulate(resource.ByteSize() for resource in part)
    part = part[: max(1, sum(size <= MAX_PAGE_BYTES for size in sizes_so_far))]
    if start + len(part) == len(ordered):
        return part, "", len(ordered)
    last = {"of": digest, "keys": [read(part[-1]) for read, _ in order], "id": meta(part[-1]).id}
    return part, base64.urlsafe_b64encode(json.dumps(last, ensure_ascii=False).encode()).decode(), len(ordered)


def _order(kind: contract.Message, text: str) -> list[tuple[Read, bool]]:
    """Returns a reader of each sort key, and whether it sorts descending."""
    order: dict[str, tuple[Read, bool]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        path, _, direction = part.partition(" ")
        if direction.strip() not in ("", "asc", "desc"):
            raise invalid("order_by", f"{direction.strip()!r} is no direction; use asc or desc")
        _, read, collection = _select(kind, path, "order_by")
        if collection:
            raise invalid("order_by", f"{path} is a {collection}; sort by a field with one value")
        order.setdefault(path, (_sort_key(read), direction.strip() == "desc"))
    return list(order.values())


def _is_after(token: str, order: list[tuple[Read, bool]], digest: str) -> Predicate:
    """Returns a predicate: whether a resource comes after the one that a token names."""
    foreign = invalid("page_token", "is not one that this list returned; start again")
    try:
        last = json.loads(base64.urlsafe_b64decode(token))
        id_, pairs = str(last["id"]), list(zip(order, last["keys"], strict=True))
    except (ValueError, TypeError, LookupError, RecursionError):
        raise foreign from None
    if last.get("of") != digest or not isinstance(last["keys"], list):
        raise foreign

    def is_after(resource: Message) -> bool:
        for (read, descending), key in pairs:
            value = read(resource)
            if type(value) is not type(key):
                raise foreign
            if value != key:
                return bool(value < key if descending else value > key)
        return meta(resource).id > id_

    return is_after


def _test(kind: contract.Message, condition: Condition) -> Predicate:
    path, operator, text = condition.path, condition.operator, condition.value
    field, read, collection = _select(kind, path, "filter")
    if collection:
        if operator != ":":
            ways = f"{path}.NAME {operator} VALUE, or {path}:NAME" if collection == "map" else f"{path}:VALUE"
            raise invalid("filter", f"{path} is a {collection}; ask with {ways}")
        wanted = text if collection == "map" else _parse(field, path, text)
        return lambda resource: wanted in read(resource)
    # With `:`, a reference may be searched by a part of the id.
    value = text if operator == ":" and field.ref else _parse(field, path, text)
    if operator == ":" and isinstance(value, str):
        return lambda resource: value.lower() in read(resource).lower()
    compare = _OPERATORS[operator]
    return lambda resource: compare(read(resource), value)


def _select(kind: contract.Message, path: str, argument: str) -> tuple[contract.Field, Read, str]:
    """Returns the field at a path, its reader (for a name in a map, of one value), and its form: `list`, `map` or, for
    a single value, empty. Times are read as nanoseconds. Raises Refusal on the argument if there is no such field.
    """
    schema: contract.Message | None = kind
    field: contract.Field | None = None
    parts = names(path) or [path]
    for index, part in enumerate(parts):
        if field is not None and field.is_map and field.type != "message":
            return _value_of_map(field, ".".join(parts[:index]), ".".join(parts[index:]))
        if field is not None and field.is_collection:
            raise invalid(argument, f"{quoted(path)} leads into {field.name}, which holds many")
        field = schema.fields.get(part) if schema is not None else None
        if schema is None or field is None:
            raise invalid(argument, f"{kind.name.rpartition('.')[2]} has no field {quoted(path)}")
        schema = schema.submessages.get(part)
    assert field is not None
    read = attrgetter(".".join(parts))
    if field.is_collection:
        if field.type == "message":
            raise invalid(argument, f"{path} holds no plain values; nothing can be asked of it")
        return field, read, "map" if field.is_map else "list"
    if schema is not None:
        raise invalid(argument, f"{path} is no value by itself; name one of its fields: {', '.join(schema.fields)}")
    return field, (lambda resource: read(resource).ToNanoseconds()) if field.type == "message" else read, ""


def _value_of_map(field: contract.Field, path: str, name: str) -> tuple[contract.Field, Read, str]:
    read, empty = attrgetter(path), _EMPTY.get(field.type, 0)
    return field, lambda resource: read(resource).get(name, empty), ""


def _parse(field: contract.Field, path: str, text: str) -> Any:
    """Parses a text as a value of the field. Raises Refusal on `filter`."""
    if field.type == "enum":
        values = CONTRACT.enums[field.type_name]
        numbers = [value.number for value in values if text.lower() in (value.short, value.name.lower())]
        if not numbers:
            choices = ", ".join(value.short for value in values[1:])
            raise invalid("filter", f"{quoted(text)} is no value of {path}; choose of {choices}")
        return numbers[0]
    if field.ref:
        if text and not formats.ID.fullmatch(text):
            holds, plural = "ids" if field.repeated else "an id", CONTRACT.kinds[field.ref].plural
            raise invalid("filter", f"{path} holds {holds}, not {quoted(text)}; list {plural} to find it")
        return text.lower()
    if field.type in ("string", "bytes"):
        return text
    if field.type == "bool":
        if text not in ("true", "false"):
            raise invalid("filter", f"{path} is true or false")
        return text == "true"
    wanted = "no time like 2026-01-31T12:00:00Z" if field.type == "message" else "no number"
    try:
        if field.type == "message":
            moment = Timestamp()
            moment.FromJsonString(text)
            return moment.ToNanoseconds()
        if field.in_bytes:
            return sizes.parse(text)
        return float(text) if field.type in ("double", "float") else int(text)
    except ValueError as error:
        raise invalid("filter", f"{path}: {error if field.in_bytes else f'{quoted(text)} is {wanted}'}") from None


def _sort_key(read: Read) -> Read:
    """Returns a reader of a field's sort key, which cuts long texts."""
    return lambda resource: value[:MAX_SORT_KEY_CHARS] if isinstance(value := read(resource), str) else value
