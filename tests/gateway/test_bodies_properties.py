"""For every REST method, known fields pass in any spelling, and unknown or repeated ones are refused."""

import json
import re
from collections.abc import Iterator
from functools import cache, reduce
from http import HTTPStatus
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kowa import contract
from tests.gateway.recorder import Recording

pytestmark = pytest.mark.gateway

BINDINGS = {
    f"{http.method.upper()} {http.path}": (method, http)
    for method in contract.load().methods.values()
    for http in method.http
}
UNKNOWN_FIELD = "foo"


class DuplicateKey(str):
    """A str that is equal to nothing else, so that a dictionary can have a key twice."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


TIME_FIELDS = {"seconds": st.integers(0, 2**32), "nanos": st.integers(0, 999_999_999)}
STRATEGIES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=20),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
}


@cache
def messages(kind: Descriptor) -> st.SearchStrategy[Any]:
    """A strategy for messages with some of their fields."""
    if kind.full_name == "google.protobuf.Timestamp":
        return st.builds(Timestamp, **TIME_FIELDS)
    if kind.full_name == "google.protobuf.Duration":
        return st.builds(Duration, **TIME_FIELDS)
    fields = {field.name: values(field) for field in kind.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: GetMessageClass(kind)(**chosen))


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """A strategy for the value of a field."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return st.dictionaries(values(entry["key"]), values(entry["value"]), max_size=3)
    if field.enum_type:
        value_ = st.sampled_from([value.number for value in field.enum_type.values])
    else:
        value_ = messages(field.message_type) if field.message_type else STRATEGIES[field.type]
    return st.lists(value_, max_size=3) if field.is_repeated else value_


def objects(kind: Descriptor, value: Any, path: str = "") -> Iterator[tuple[Descriptor, str, Any]]:
    """Yields (message type, path prefix of its fields, JSON object) for a message and each one nested in it."""
    yield kind, path, value
    names = {name: field for field in kind.fields for name in (field.name, field.json_name)}
    for name, inner in value.items():
        nested = names[name].message_type
        if nested and not nested.GetOptions().map_entry:
            items = enumerate(inner) if isinstance(inner, list) else [(None, inner)]
            for index, item in items:
                if isinstance(item, dict):
                    inner_path = f"{path}{name}" if index is None else f"{path}{name}[{index}]"
                    yield from objects(nested, item, f"{inner_path}.")


def spelled(value: Any, random: Random) -> str:
    """A random text, JSON or a looser form, that the transcoder reads as the value."""
    space = random.choice(["", "", " ", "\n\t", "\v\f"])
    comma = random.choice(["", space + ","]) if value else ""
    if isinstance(value, dict):
        items = [f"{space}{_key(key, random)}{space}:{spelled(item, random)}" for key, item in value.items()]
        return "{" + ",".join(items) + comma + space + "}"
    if isinstance(value, list):
        return "[" + ",".join(spelled(item, random) for item in value) + comma + space + "]"
    return space + (_string(value, random) if isinstance(value, str) else json.dumps(value)) + space


def _key(key: str, random: Random) -> str:
    if re.fullmatch(r"(?!true|false|null)[A-Za-z_$][\w$]*", key, re.ASCII):
        return random.choice([key, "".join(f"\\u{ord(letter):04x}" for letter in key).join('""'), _string(key, random)])
    return _string(key, random)


def _string(text: str, random: Random) -> str:
    double_quoted = json.dumps(text, ensure_ascii=random.choice([True, False]))
    single_quoted = "'" + double_quoted[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    return random.choice([double_quoted, single_quoted])


@pytest.mark.parametrize("binding", BINDINGS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_known_fields_pass_and_unknown_or_repeated_ones_are_refused(
    recorded: Recording, binding: str, data: st.DataObject
) -> None:
    method, http = BINDINGS[binding]
    request: Any = contract.load().stub(method.request.name)()
    part = request if http.body in ("", "*") else getattr(request, http.body)
    part.SetInParent()
    part.CopyFrom(data.draw(messages(part.DESCRIPTOR)))
    bound = [name.split(".") for name in re.findall(r"{(.*?)}", http.path)]
    for *parents, name in bound:
        reduce(getattr, parents, request).ClearField(name)
    random = data.draw(st.randoms(use_true_random=False))
    body = MessageToDict(part, preserving_proto_field_name=random.choice([True, False]))
    for *parents, name in bound:
        setattr(reduce(getattr, parents, request), name, "x")

    path = re.sub("{.*?}", "x", http.path)
    text = random.choice([json.dumps(body), spelled(body, random)])
    response = recorded.request(http.method.upper(), path, text)
    assert response.status_code == HTTPStatus.OK, (text, response.text)
    assert recorded.calls == [request]

    filled = [
        (kind, prefix, json_object) for kind, prefix, json_object in objects(part.DESCRIPTOR, body) if json_object
    ]
    for kind, prefix, json_object in random.sample(filled, min(2, len(filled))):
        field = next(field for field in kind.fields if {field.name, field.json_name} & json_object.keys())
        duplicate = DuplicateKey(random.choice([field.name, field.json_name]))
        json_object[duplicate] = random.choice([None, "a", {"name": [1]}])
        text = spelled(body, random)
        response = recorded.request(http.method.upper(), path, text)
        assert response.status_code == HTTPStatus.BAD_REQUEST, text
        assert f"{prefix}{duplicate}" in {
            each["field"] for each in response.json()["details"][1]["field_violations"]
        }, text
        assert not recorded.calls
        del json_object[duplicate]

    all_objects = [(prefix, json_object) for _, prefix, json_object in objects(part.DESCRIPTOR, body)]
    chosen_objects = random.sample(all_objects, random.randint(1, min(3, len(all_objects))))
    for _, json_object in chosen_objects:
        json_object[UNKNOWN_FIELD] = random.choice([None, "a", {"name": [1]}])
    text = spelled(body, random)
    response = recorded.request(http.method.upper(), path, text)
    assert response.status_code == HTTPStatus.BAD_REQUEST, text
    found = {violation["field"] for violation in response.json()["details"][1]["field_violations"]}
    assert found == {prefix + UNKNOWN_FIELD for prefix, _ in chosen_objects}
    assert not recorded.calls


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_query_parameter_given_twice_or_elsewhere_is_refused(recorded: Recording, binding: str) -> None:
    method, http = BINDINGS[binding]
    bound = re.findall(r"{(.*?)}", http.path)
    path = re.sub("{.*?}", "x", http.path)
    request: Any = contract.load().stub(method.request.name).DESCRIPTOR
    queries = {f"{name}=y": name for name in bound}
    for field in request.fields:
        repeats = field.is_repeated or (field.message_type and field.message_type.full_name.endswith("FieldMask"))
        if field.name == http.body:
            queries[f"{field.name}.meta.id=y"] = f"{field.name}.meta.id"
        elif field.name not in bound and not repeats:
            queries[f"{field.name}=1&{field.json_name}=2"] = field.json_name
    for query, name in queries.items():
        response = recorded.request(http.method.upper(), f"{path}?{query}")
        assert response.status_code == HTTPStatus.BAD_REQUEST, query
        assert [each["field"] for each in response.json()["details"][1]["field_violations"]] == [name]
        assert not recorded.calls
