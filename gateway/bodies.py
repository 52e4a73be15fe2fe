"""What a REST body may hold: a Lua filter that refuses keys which name no field, and its tables."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor

from kowa import contract

NAME: Final = "gateway.bodies"  # of the filter, and of the metadata with its violations
FILTER: Final = Path(__file__).with_suffix(".lua")

FREE: Final = (  # what may be in them is no matter of fields
    "google.api.HttpBody",
    "google.protobuf.Any",
    "google.protobuf.ListValue",
    "google.protobuf.Struct",
    "google.protobuf.Value",
)


def script() -> str:
    """The filter's source, its tables before it."""
    tables = {"messages": _messages(), "bodies": _bodies()}
    return "".join(f"local {name} = {_lua(table)}\n" for name, table in tables.items()) + FILTER.read_text()


def _messages() -> dict[str, Any]:
    """The fields of each message that a body may hold, by both spellings, and what is in them; by full name."""
    found: dict[str, Any] = {}
    wanted = [message for _, _, message in _bindings()]
    while wanted:
        message = wanted.pop()
        name = _name(message)
        if message and name and name not in found:
            found[name] = _message(message)
            wanted.extend(field.message_type for field in message.fields)
    return found


def _message(message: Descriptor) -> dict[str, Any]:
    if message.GetOptions().map_entry:
        return {"values": _name(message.fields_by_name["value"].message_type)}
    names = ", ".join(field.name for field in message.fields)
    return {
        "about": f"{message.name}, which has {names or 'none'}",
        "fields": {
            name: _name(field.message_type) for field in message.fields for name in (field.name, field.json_name)
        },
    }


def _name(message: Descriptor | None) -> str:
    """The full name; empty where a key may be anything, or none is possible."""
    return "" if message is None or message.full_name in FREE else message.full_name


def _bodies() -> dict[str, list[dict[str, str]]]:
    """The message of each REST body by HTTP method, what is more particular first."""
    table: dict[str, list[dict[str, str]]] = {}
    for method, path, message in sorted(_bindings(), key=lambda binding: (binding[1].count("{"), -len(binding[1]))):
        table.setdefault(method, []).append({"path": _pattern(path), "message": _name(message)})
    return table


def _bindings() -> Iterator[tuple[str, str, Descriptor | None]]:
    """HTTP method, path template and message of each body.

    Envoy takes a body where the contract has none, too, and reads the whole request from it.
    """
    known = contract.load()
    for method in known.methods.values():
        request = cast(Descriptor, known.stub(method.request.name).DESCRIPTOR)
        for http in method.http:
            whole = http.body in ("", "*")
            yield http.method.upper(), http.path, request if whole else request.fields_by_name[http.body].message_type


def _pattern(path: str) -> str:
    """A path template as a Lua pattern: `/api/v2/regions/{id}` as `^/api/v2/regions/[^/]+/*$`."""
    literals = re.split(r"\{[^}]*\}", path)
    return "^" + "[^/]+".join(re.sub(r"([-.])", r"%\1", literal) for literal in literals) + "/*$"


def _lua(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"[{_lua(key)}]={_lua(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ",".join(map(_lua, value)) + "}"
    return json.dumps(value)
