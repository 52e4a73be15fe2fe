"""The check of REST requests: a Lua filter that refuses unknown and repeated fields, and its tables."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor

from kowa import contract

FILTER_SOURCE: Final = Path(__file__).with_name("bodies.lua")  # the filter gateway.bodies of envoy.yaml

MASK: Final = "google.protobuf.FieldMask"  # may be given in several parts in a query
FREE_FORM: Final = (  # messages whose JSON has arbitrary keys
    "google.api.HttpBody",
    "google.protobuf.Any",
    "google.protobuf.ListValue",
    "google.protobuf.Struct",
    "google.protobuf.Value",
)


def script() -> str:
    """The filter's source, after its tables."""
    tables = {"messages": _messages(), "bindings": _bindings_by_method()}
    return "".join(f"local {name} = {_lua(table)}\n" for name, table in tables.items()) + FILTER_SOURCE.read_text()


def _messages() -> dict[str, Any]:
    """The message table, by full name: the fields of each message that a body may contain, in both spellings."""
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
        "description": f"{message.name}, which has {names or 'none'}",
        "fields": {
            name: _name(field.message_type) for field in message.fields for name in (field.name, field.json_name)
        },
        "names": {field.json_name: field.name for field in message.fields if field.json_name != field.name},
        "lists": {each.name: True for each in message.fields if each.is_repeated or _name(each.message_type) == MASK},
    }


def _name(message: Descriptor | None) -> str:
    """The full name of a message; empty for a free-form message and for None."""
    return "" if message is None or message.full_name in FREE_FORM else message.full_name


@dataclass(frozen=True, slots=True)
class _Binding:
    """The REST form of a method."""

    method: str  # of HTTP
    path: str  # a template
    request: Descriptor
    part: str  # the field of the request that is the body; empty if the body is the whole request

    @property
    def body(self) -> Descriptor | None:
        """The message in the body. If the contract has none, Envoy still accepts one: the whole request."""
        return self.request.fields_by_name[self.part].message_type if self.part else self.request


def _bindings() -> Iterator[_Binding]:
    contracts = contract.load()
    for method in contracts.methods.values():
        request = cast(Descriptor, contracts.stub(method.request.name).DESCRIPTOR)
        for http in method.http:
            yield _Binding(http.method.upper(), http.path, request, http.body.removeprefix("*"))


def _bindings_by_method() -> dict[str, list[dict[str, Any]]]:
    """The binding table, by HTTP method: the most specific paths first."""
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
    """A path template as a Lua pattern, such as `^/api/v2/regions/[^/]+/*$` for `/api/v2/regions/{id}`."""
    literals = re.split(r"\{[^}]*\}", path)
    return "^" + "[^/]+".join(re.sub(r"([-.])", r"%\1", literal) for literal in literals) + "/*$"


def _lua(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"[{_lua(key)}]={_lua(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ",".join(map(_lua, value)) + "}"
    return json.dumps(value)
