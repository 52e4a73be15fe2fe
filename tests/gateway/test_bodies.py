"""An unknown field in a REST body is refused by its path, wherever in the body it is."""

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from kowa.v2.instance_pb2 import Instance
from tests.gateway.conftest import envoy, prepared
from tests.gateway.recorder import Recording, recording

pytestmark = pytest.mark.gateway

MAX_REQUEST_BYTES = 4 << 20  # the largest message that Kahuna accepts
INSTANCES, REGIONS = "POST /api/v2/instances", "POST /api/v2/regions"


def send(recorded: Recording, request: str) -> httpx.Response:
    """Sends a request written as `METHOD /path body`."""
    method, path, *body = request.split(" ", 2)
    return recorded.request(method, path, *body)


REFUSED = [
    # request, path of the unknown key, message that has no such field
    (INSTANCES + ' {"name": "web", "memroy": 1}', "memroy", "Instance"),
    (INSTANCES + ' {"Name": "web"}', "Name", "Instance"),
    (INSTANCES + ' {"instance": {"name": "web"}}', "instance", "Instance"),
    (INSTANCES + ' {"name": "web", "foo": null}', "foo", "Instance"),
    (INSTANCES + ' {"foo": {"name": "web"}, "meta": {"id": "x"}}', "foo", "Instance"),
    (INSTANCES + ' {"meta": {"foo": 1}}', "meta.foo", "Meta"),
    (INSTANCES + ' {"meta": {"createTime": {"sceonds": 1}}}', "meta.createTime.sceonds", "Timestamp"),
    (INSTANCES + ' {"status": {"addresses": ["a"], "adresses": []}}', "status.adresses", "InstanceStatus"),
    (INSTANCES + ' {"metadata": {"foo": "bar"}, "foo": 1}', "foo", "Instance"),
    (INSTANCES + ' {"meta": {"conditions": [{}, {"typ": "a"}]}}', "meta.conditions[1].typ", "Condition"),
    (INSTANCES + ' {"meta": {"conditions": [[{"typ": "a"}]]}}', "meta.conditions[0][0].typ", "Condition"),
    (INSTANCES + ' {"meta": {"conditions": [{"type": "a"}]}, "foo": 1}', "foo", "Instance"),
    ('PATCH /api/v2/instances/x {"memroy": 1}', "memroy", "Instance"),
    ('PATCH /api/v2/instances/x?update_mask=memory {"memory": 1, "foo": 1}', "foo", "Instance"),
    ('POST /api/v2/instances/x:start {"reqest_id": "a"}', "reqest_id", "StartInstanceRequest"),
    ('POST /api/v2/operations/x:wait {"timeout": {"sec": 1}}', "timeout.sec", "Duration"),
    ('DELETE /api/v2/agent-tokens/x {"etga": "1"}', "etga", "DeleteAgentTokenRequest"),
    ('GET /api/v2/regions {"filtre": "a"}', "filtre", "ListRegionsRequest"),
    ('GET /api/v2/regions:watch {"filtre": "a"}', "filtre", "WatchRegionsRequest"),
    # Other spellings of the path that Envoy accepts.
    ('POST /api/v2/regions/ {"foo": 1}', "foo", "Region"),
    ('POST /api/v2/r%65gions {"foo": 1}', "foo", "Region"),
    ('POST /api/v2/regions?validate_only=true {"foo": 1}', "foo", "Region"),
    ('PATCH /api/v2/regions/a:b%2Fc/ {"foo": 1}', "foo", "Region"),
    # Other spellings of the body that Envoy accepts.
    (REGIONS + r' {"name": "\"}, \\", "foo": 1}', "foo", "Region"),
    (REGIONS + " {'name': '\"', 'foo': 1}", "foo", "Region"),
    (REGIONS + " {name: 'eu', foo: 1}", "foo", "Region"),
    (REGIONS + ' \n\v{\t"foo"\f:1,}', "foo", "Region"),
    (REGIONS + r' {"\u0066oo": 1}', "foo", "Region"),
    (REGIONS + r' {"n\\u0061me": 1}', r"n\ame", "Region"),
    (REGIONS + ' {"name": "eu", "größe": 1}', "größe", "Region"),
    (REGIONS + ' {"": 1}', '""', "Region"),
    (REGIONS + ' {"%REQ(:path)%": 1}', "%REQ(:path)%", "Region"),
    (REGIONS + ' {"' + "x" * 1000 + '": 1}', "x" * 64, "Region"),
    (REGIONS + ' {"meta": ' + "[" * 120 + '{"foo": 1}' + "]" * 120 + "}", "meta" + "[0]" * 120 + ".foo", "Meta"),
]


@pytest.mark.parametrize(("request_", "field", "message"), REFUSED, ids=[row[0][:90] for row in REFUSED])
def test_unknown_fields_are_refused(recorded: Recording, request_: str, field: str, message: str) -> None:
    response = send(recorded, request_)
    assert response.status_code == HTTPStatus.BAD_REQUEST
    error = response.json()
    assert error["message"].startswith(f"{field}: is no field of {message}, which has ")
    assert [violation["field"] for violation in error["details"][1]["field_violations"]] == [field]
    assert not recorded.calls


ACCEPTED = [
    f"{INSTANCES}",
    INSTANCES + " {}",
    INSTANCES + " null",
    INSTANCES + ' {"user_data": "a", "sshKeys": ["b"], "meta": {"id": "", "etag": ""}}',
    INSTANCES + ' {"meta": {"conditions": [{"type": "a"}, {"type": "b"}], "id": "x"}, "name": "x"}',
    INSTANCES + ' {"metadata": {"foo": "bar", "meta.foo": "", "": "x", "{\\"": "}"}}',
    INSTANCES + ' {"meta": null, "metadata": null, "volumes": null, "power": null}',
    INSTANCES + r' {"description": "{\"foo\": 1}, \\", "name": "a, b: {c}"}',
    INSTANCES + ' {"meta": {"conditions": {"type": "a"}, "createTime": {"seconds": 1}}}',
    INSTANCES + ' {"meta": {"createTime": "2026-01-01T00:00:00Z"}}',
    REGIONS + r' {"\u006e\u0061\u006d\u0065": "eu"}',
    "POST /api/v2/instances/x:start",
    "POST /api/v2/instances/x:start {}",
    'POST /api/v2/operations/x:wait {"timeout": "5s"}',
    'DELETE /api/v2/regions/x {"etag": "a", "validateOnly": true}',
    'GET /api/v2/regions {"pageSize": 5}',
    "GET /api/v2/regions?page_size=5&pageToken=x&filter=name:a%26filter=b&order_by=",
    'PATCH /api/v2/regions/x?update_mask=name&updateMask=description&update_mask.paths=name {"name": "eu"}',
    'POST /api/v2/instances/x:start?validate_only=true {"request_id": "a"}',
    "DELETE /api/v2/regions/x?etag=a&validate_only=true",
]


@pytest.mark.parametrize("request_", ACCEPTED)
def test_known_fields_pass(recorded: Recording, request_: str) -> None:
    response = send(recorded, request_)
    assert response.status_code == HTTPStatus.OK, response.text
    assert len(recorded.calls) == 1


TWICE = [
    # request, path of the field, part of the message
    (INSTANCES + ' {"ssh_keys": ["a"], "sshKeys": ["b"]}', "sshKeys", "is given twice; give ssh_keys once"),
    (INSTANCES + ' {"sshKeys": ["a"], "ssh_keys": ["b"]}', "ssh_keys", "is given twice; give ssh_keys once"),
    (INSTANCES + ' {"sshKeys": [], "sshKeys": []}', "sshKeys", "is given twice"),
    (REGIONS + ' {"name": "eu", "name": "us"}', "name", "is given twice; give name once"),
    (REGIONS + ' {"name": "eu", "name": "eu"}', "name", "is given twice"),
    (REGIONS + ' {"name": "eu", "name": null}', "name", "is given twice"),
    (REGIONS + r' {"name": "eu", "\u006eame": "us"}', "name", "is given twice"),
    (REGIONS + " {name: 'eu', 'name': 'us'}", "name", "is given twice"),
    (INSTANCES + ' {"meta": {"id": "x"}, "meta": {"etag": "y"}}', "meta", "is given twice"),
    (INSTANCES + ' {"metadata": {"a": "1"}, "metadata": {"b": "1"}}', "metadata", "is given twice"),
    (INSTANCES + ' {"meta": {"etag": "x", "id": "", "etag": "y"}}', "meta.etag", "is given twice"),
    (INSTANCES + ' {"meta": {"conditions": [{}, {"type": "a", "type": "b"}]}}', "meta.conditions[1].type", "twice"),
    (INSTANCES + ' {"meta": {"createTime": "", "create_time": ""}}', "meta.create_time", "give create_time once"),
    ('PATCH /api/v2/regions/x {"name": "eu", "name": "us"}', "name", "is given twice"),
    ('POST /api/v2/instances/x:start {"requestId": "a", "request_id": "b"}', "request_id", "is given twice"),
    ('DELETE /api/v2/regions/x {"validateOnly": true, "validate_only": false}', "validate_only", "is given twice"),
    # Twice in the query, or in the query and in the path or body.
    ("GET /api/v2/regions?page_size=1&page_size=2", "page_size", "is given twice; give page_size once"),
    ("GET /api/v2/regions?page_size=1&filter=a&pageSize=1", "pageSize", "is given twice; give page_size once"),
    ("GET /api/v2/regions?filter=a&fil%74er=b", "filter", "is given twice"),
    ("GET /api/v2/regions?filter&filter=b", "filter", "is given twice"),
    ("DELETE /api/v2/regions/x?validate_only=true&validateOnly=false", "validateOnly", "is given twice"),
    ('POST /api/v2/regions?validate_only=true&validate_only=false {"name": "eu"}', "validate_only", "is given twice"),
    ("GET /api/v2/regions/x?id=y", "id", "stands in the path; leave it out of the query"),
    ("DELETE /api/v2/regions/x?i%64=y", "id", "stands in the path"),
    ("POST /api/v2/instances/x:start?id=y", "id", "stands in the path"),
    ('PATCH /api/v2/instances/x?instance.meta.id=y {"description": "d"}', "instance.meta.id", "belongs in the body"),
    ('PATCH /api/v2/instances/x?instance.sshKeys=y {"ssh_keys": []}', "instance.sshKeys", "belongs in the body"),
    ("POST /api/v2/regions?region.name=eu", "region.name", "belongs in the body; leave it out of the query"),
    ("POST /api/v2/operations/x:wait?timeout=5s&timeout.seconds=6", "timeout.seconds", "is given twice"),
    ("POST /api/v2/operations/x:wait?timeout.seconds=6&timeout=5s", "timeout", "is given twice"),
    ("GET /api/v2/regions?page_size=1&page_size=2 {}", "page_size", "is given twice"),
]


@pytest.mark.parametrize(("request_", "field", "message"), TWICE, ids=[row[0][:90] for row in TWICE])
def test_a_field_given_twice_is_refused(recorded: Recording, request_: str, field: str, message: str) -> None:
    response = send(recorded, request_)
    assert response.status_code == HTTPStatus.BAD_REQUEST, recorded.calls
    (violation,) = response.json()["details"][1]["field_violations"]
    assert violation["field"] == field
    assert message in violation["description"]
    assert not recorded.calls


def test_a_map_key_given_twice_is_refused_by_the_transcoder(recorded: Recording) -> None:
    response = send(recorded, INSTANCES + ' {"metadata": {"a": "1", "a": "2"}}')
    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert "Repeated map key: 'a'" in response.json()["message"]
    assert not recorded.calls


DEEP = "Message too deep"
MALFORMED = [
    (' {"foo": 1', "Unexpected end of string"),
    (' {"foo": 1}}', "Parsing terminated before end of input"),
    (' {"foo": 1]', "Expected , or }"),
    (' {"foo": "', "Closing quote expected"),
    (' {"foo" 1}', "Expected : between key:value pair"),
    (' {"name"::1, "foo": 1}', "Unexpected token"),
    (' {"meta": {}:1, "foo": 1}', "Expected , or }"),
    (' {"meta": {} "foo": 1}', "Expected , or }"),
    (' {{"foo": 1}}', "Expected an object key or }"),
    (' {"meta" {"foo": 1}}', "Expected : between key:value pair"),
    (' ["foo": 1]', "Expected , or ]"),
    (" foo", "Unexpected token"),
    (" }", "Unexpected token"),
    (" " + '{"foo":' * 129 + "1" + "}" * 129, DEEP),
    (" " + "[" * 129 + '{"foo": 1}' + "]" * 129, DEEP),
]


@pytest.mark.parametrize(("body", "message"), MALFORMED, ids=[row[0][:30] for row in MALFORMED])
def test_a_malformed_body_is_refused_by_the_transcoder(recorded: Recording, body: str, message: str) -> None:
    response = send(recorded, REGIONS + body)
    assert (response.status_code, response.json()["details"]) == (HTTPStatus.BAD_REQUEST, [])
    assert message in response.json()["message"]
    assert not recorded.calls


def test_a_refusal_has_the_form_of_all_errors(recorded: Recording) -> None:
    response = send(recorded, REGIONS + ' {"nmae": "eu", "meta": {"ids": 1}}')
    assert response.headers["content-type"] == "application/json"
    region, meta = response.json()["details"][1]["field_violations"]
    assert region == {
        "field": "nmae",
        "description": "is no field of Region, which has meta, name, description, labels",
        "reason": "",
    }
    assert response.json() == {
        "code": 3,
        "message": f"nmae: {region['description']}; meta.ids: {meta['description']}",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "INVALID_ARGUMENT",
                "domain": "kowabunga",
                "metadata": {},
            },
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "field_violations": [region, meta]},
        ],
    }


def test_only_the_first_unknown_fields_are_named(recorded: Recording) -> None:
    body = json.dumps({f"foo{number}": number for number in range(1000)})
    violations = send(recorded, f"{REGIONS} {body}").json()["details"][1]["field_violations"]
    assert [violation["field"] for violation in violations] == [f"foo{number}" for number in range(8)]


def escaped(name: str) -> str:
    """The name with every character as a \\u escape."""
    return "".join(f"\\u{ord(letter):04x}" for letter in name)


BODY_BYTES = MAX_REQUEST_BYTES - 1000
# A large body is the first text, the second as often as it fits, and the third.
HOSTILE_BODIES = {
    "numbers": ('{"meta": {"conditions": [', "1,", "{}]}}"),
    "objects": ('{"meta": {"conditions": [', '{"type":""},', "{}]}}"),
    "names": ("{", '"meta":{},', '"name": ""}'),
    "words": ("{", "name:0,", "name: 0}"),
    "quotes": ('{"name": "', '\\"', '"}'),
    "backslashes": ('{"name": "', "\\\\", '"}'),
    "spaces": ("{", " ", 'name: ""}'),
    "colons": ("{", ":", "}"),
    "keys": ('{"metadata": {', '"a":"",', "}}"),
    "commas": ("[", ",", "]"),
    "open": ("", "[", ""),
    "nested": ("", '{"meta":', ""),
    "escapes": ('{"', "\\u0066", '": 1}'),
    "zeros": ("", "\0", ""),
    "colons after an escaped name": ('{"meta":{"' + escaped("observed_generation") + '"', ":", "}}"),
    "escaped names": ("{", f'"{escaped("description")}":0,', '"name": ""}'),
    "a name left open at every level": ("{" * 128, "a", ":}" * 128),
}


@pytest.mark.parametrize("shape", HOSTILE_BODIES)
def test_the_largest_body_is_answered_at_once(recorded: Recording, shape: str) -> None:
    head, part, tail = HOSTILE_BODIES[shape]
    body = head + part * (BODY_BYTES // len(part)) + tail
    response = recorded.rest.post("/api/v2/instances", content=body, timeout=5)
    assert response.status_code in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)


def test_an_unknown_field_at_the_end_of_the_largest_body_is_found(recorded: Recording) -> None:
    response = send(recorded, REGIONS + ' {"description": "' + "x" * BODY_BYTES + '", "foo": 1}')
    assert response.json()["message"].startswith("foo: is no field of Region")


TOO_LARGE = (
    "too large: a body has 4194304 bytes at most, 65536 that of a wait, a watch or a console,"
    " and none in a GET without content-length"
)


def chunks(size: int) -> Iterator[bytes]:
    """A chunked body, without content-length."""
    for _ in range(size // 100):
        yield b" " * 100


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("POST", b" " * (MAX_REQUEST_BYTES + 1)),
        ("POST", chunks(MAX_REQUEST_BYTES + 100)),
        ("DELETE", b" " * (MAX_REQUEST_BYTES + 1)),
        ("GET", b" " * (MAX_REQUEST_BYTES + 1)),
        ("GET", chunks(100)),
    ],
)
def test_a_body_that_is_too_large_or_of_unknown_length_in_a_get_is_refused(
    recorded: Recording, method: str, body: Any
) -> None:
    response = recorded.request(method, "/api/v2/regions", body)
    assert response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert response.json() == {"code": 8, "message": TOO_LARGE, "details": []}
    assert not recorded.calls


def test_no_request_passes_when_the_check_fails(tmp_path: Path) -> None:
    calls: list[Any] = []
    with recording(calls) as kahuna:
        command, (plain, _, admin) = prepared(kahuna, tmp_path, "--log-level", "off")
        script = tmp_path / "bodies.lua"
        script.write_text(re.sub(r"(function violations_in_body\(.*\)\n)", r'\1 error("broken") ', script.read_text()))
        with envoy(command, admin), httpx.Client(base_url=f"http://{plain}") as rest:
            broken = rest.post("/api/v2/regions", json={"name": "eu"})
            assert broken.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
            message = "the gateway can't check the request, so nothing was done; its log says why"
            assert broken.json() == {"code": 13, "message": message, "details": []}
            assert not calls
            assert rest.get("/api/v2/regions").status_code == HTTPStatus.OK


def test_a_refused_request_changes_nothing(rest: httpx.Client, wanted_instance: Instance) -> None:
    instance = MessageToDict(wanted_instance, preserving_proto_field_name=True)
    created = rest.post("/api/v2/instances", json=instance).json()
    path = f"/api/v2/instances/{created['meta']['id']}"

    def revision() -> Any:
        return rest.get("/api/v2/regions").json()["revision"]

    before = revision()
    for method, url, body in (
        ("POST", "/api/v2/instances", instance | {"name": "other", "memroy": 1}),
        ("PATCH", path, {"description": "new", "memroy": 1}),
        ("POST", f"{path}:stop", {"validateonly": True}),
        ("DELETE", path, {"etga": "0"}),
    ):
        assert rest.request(method, url, json=body).status_code == HTTPStatus.BAD_REQUEST
    assert revision() == before
    assert rest.patch(path, json={"description": "new"}).json()["description"] == "new"
    assert revision() != before
