"""What a REST request may hold: a Lua filter that refuses keys which name no field, or one twice, and its tables."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor

from kowa import contract

FILTER_SOURCE: Final = Path(__file__).with_name("bodies.lua")  # what envoy.yaml calls gateway.bodies

FIELD_MASK: Final = "google.protobuf.FieldMask"  # one in a query may be given in parts
FREE_FORM: Final = (  # messages whose JSON has keys of the caller's own
    "google.api.HttpBody",
    "google.protobuf.Any",
    "google.protobuf.ListValue",
    "google.protobuf.Struct",
    "google.protobuf.Value",
)


def script() -> str:
    """The filter's source, its tables before it."""
    tables = {"messages": _messages(), "bindings": _tables()}
    return "".join(f"local {name} = {_lua(table)}\n" for name, table in tables.items()) + FILTER_SOURCE.read_text()


def _messages() -> dict[str, Any]:
    """The fields of each message that a body may hold, by both spellings, and what is in them; by full name."""
    found: dict[str, Any] = {}
    wanted = [message for binding in _bindings() for message in (binding.request, binding.body)]
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
        "names": {field.json_name: field.name for field in message.fields if field.json_name != field.name},
        "lists": {field.name: True for field in message.fields if field.is_repeated or _is_mask(field.message_type)},
    }


def _name(message: Descriptor | None) -> str:
    """The full name; empty where a key may be anything, or none is possible."""
    return "" if message is None or message.full_name in FREE_FORM else message.full_name


def _is_mask(message: Descriptor | None) -> bool:
    return message is not None and message.full_name == FIELD_MASK


@dataclass(frozen=True, slots=True)
class _Binding:
    """A method's REST form."""

    method: str  # of HTTP
    path: str  # a template
    request: Descriptor
    part: str  # the field that the body holds, empty when it holds all

    @property
    def body(self) -> Descriptor | None:
        """The message in the body.

        Envoy takes a body where the contract has none, too, and reads the whole request from it.
        """
        return self.request.fields_by_name[self.part].message_type if self.part else self.request


def _bindings() -> Iterator[_Binding]:
    known = contract.load()
    for method in known.methods.values():
        request = cast(Descriptor, known.stub(method.request.name).DESCRIPTOR)
        for http in method.http:
            yield _Binding(http.method.upper(), http.path, request, http.body.removeprefix("*"))


def _tables() -> dict[str, list[dict[str, Any]]]:
    """What the filter knows of each binding, by HTTP method, what is more particular first."""
    table: dict[str, list[dict[str, Any]]] = {}
    for binding in sorted(_bindings(), key=lambda each: (each.path.count("{"), -len(each.path))):
        table.setdefault(binding.method, []).append(
            {
                "path": _pattern(binding.path),
                "request": binding.request.full_name,
                "body": _name(binding.body),
                "part": binding.part,
                "bound": dict.fromkeys(re.findall(r"\{([^}=]*)", binding.path), True),
            }
        )
    return table


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
