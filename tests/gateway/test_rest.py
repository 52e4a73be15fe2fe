"""The REST API /api/v2 through a real Envoy."""

import json
import re
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from kowa.v2.instance_pb2 import Instance
from tests.gateway.conftest import Gateway

pytestmark = pytest.mark.gateway


def create(rest: httpx.Client, path: str = "regions", **fields: object) -> Any:
    """Creates a resource and returns it."""
    response = rest.post(f"/api/v2/{path}", json=fields)
    assert response.status_code == HTTPStatus.OK, response.text
    return response.json()


def test_a_created_resource_is_read_back(rest: httpx.Client) -> None:
    created = create(rest, name="eu", description="Europe")
    read = rest.get(f"/api/v2/regions/{created['meta']['id']}").json()
    assert (read["name"], read["description"], read["meta"]["state"]) == ("eu", "Europe", "STATE_READY")
    assert read["meta"]["etag"] == created["meta"]["etag"]


def test_zero_values_and_empty_lists_are_in_responses(rest: httpx.Client, wanted_instance: Instance) -> None:
    created = create(rest, "instances", **MessageToDict(wanted_instance, preserving_proto_field_name=True))
    assert (created["description"], created["adapters"], created["metadata"]) == ("", [], {})
    assert created["memory"] == "1073741824", "64-bit integers are strings in canonical proto JSON"


def test_the_operation_of_a_change_is_in_a_header(rest: httpx.Client) -> None:
    response = rest.post("/api/v2/regions", json={"name": "eu"})
    operation = rest.get(f"/api/v2/operations/{response.headers['kowabunga-operation']}").json()
    assert (operation["method"], operation["phase"]) == ("CreateRegion", "PHASE_DONE")


def test_a_list_has_pages_a_filter_and_an_order(rest: httpx.Client) -> None:
    for name in ("eu", "us", "asia"):
        create(rest, name=name)
    page = rest.get("/api/v2/regions", params={"page_size": 2, "order_by": "name desc"}).json()
    assert [region["name"] for region in page["regions"]] == ["us", "eu"]
    assert page["total_size"] == 3
    next_page = rest.get(
        "/api/v2/regions", params={"page_size": 2, "order_by": "name desc", "page_token": page["next_page_token"]}
    ).json()
    assert [region["name"] for region in next_page["regions"]] == ["asia"]
    filtered = rest.get("/api/v2/regions", params={"filter": 'name = "us"'}).json()
    assert [region["name"] for region in filtered["regions"]] == ["us"]


def test_labels_are_returned_unchanged_and_can_be_filtered_by(rest: httpx.Client) -> None:
    created = create(rest, name="eu", labels={"env": "prod", "k8s.io/role": 'a "b" é'})
    create(rest, name="us")
    path = f"/api/v2/regions/{created['meta']['id']}"
    assert rest.get(path).json()["labels"] == created["labels"] == {"env": "prod", "k8s.io/role": 'a "b" é'}
    for condition in ("labels.env = prod", "labels:env", 'labels."k8s.io/role" = "a \\"b\\" é"'):
        found = rest.get("/api/v2/regions", params={"filter": condition}).json()
        assert [region["name"] for region in found["regions"]] == ["eu"], condition
    changed = rest.patch(path, params={"update_mask": "labels"}, json={"labels": {"env": "test"}}).json()
    assert (changed["labels"], changed["meta"]["generation"]) == ({"env": "test"}, created["meta"]["generation"])
    assert changed["meta"]["etag"] != created["meta"]["etag"]


def test_a_patch_changes_only_the_fields_of_the_mask(rest: httpx.Client) -> None:
    path = f"/api/v2/regions/{create(rest, name='eu', description='old')['meta']['id']}"
    body = {"name": "ignored", "description": "new"}
    patched = rest.patch(path, params={"update_mask": "description"}, json=body).json()
    assert (patched["name"], patched["description"]) == ("eu", "new")


def test_a_patch_may_contain_the_whole_resource(rest: httpx.Client) -> None:
    path = f"/api/v2/regions/{create(rest, name='eu')['meta']['id']}"
    assert rest.patch(path, json=rest.get(path).json() | {"description": "new"}).json()["description"] == "new"


def test_a_patch_of_the_whole_resource_ignores_output_only_fields(
    rest: httpx.Client, wanted_instance: Instance
) -> None:
    created = create(rest, "instances", **MessageToDict(wanted_instance, preserving_proto_field_name=True))
    path = f"/api/v2/instances/{created['meta']['id']}"
    read = rest.get(path).json()
    assert read["kaktus"]
    assert rest.patch(path, json=read | {"description": "new"}).json()["description"] == "new"


def test_a_resource_is_deleted(rest: httpx.Client) -> None:
    path = f"/api/v2/regions/{create(rest, name='eu')['meta']['id']}"
    deleted = rest.delete(path)
    assert (deleted.status_code, deleted.json()) == (HTTPStatus.OK, {})
    assert deleted.headers["kowabunga-operation"]
    assert rest.get(path).status_code == HTTPStatus.NOT_FOUND


def test_custom_verbs_need_no_body(rest: httpx.Client, wanted_instance: Instance) -> None:
    created = create(rest, "instances", **MessageToDict(wanted_instance, preserving_proto_field_name=True))
    path = f"/api/v2/instances/{created['meta']['id']}"
    assert rest.post(f"{path}:stop").json()["power"] == "POWER_STOPPED"
    assert rest.post(f"{path}:start", json={}).json()["power"] == "POWER_RUNNING"


def test_a_watch_sends_one_json_object_per_line(rest: httpx.Client) -> None:
    create(rest, name="eu")
    with rest.stream("GET", "/api/v2/regions:watch", timeout=10) as response:
        lines = response.iter_lines()
        first, synced = json.loads(next(lines)), json.loads(next(lines))
        assert (first["change"], first["region"]["name"]) == ("CHANGE_PUT", "eu")
        assert synced["change"] == "CHANGE_SYNCED"
        create(rest, name="us")
        assert json.loads(next(lines))["region"]["name"] == "us"


REFUSALS = [
    # request, HTTP status, gRPC code, part of the message
    ("GET    /api/v2/regions/nope", 404, 5, "nope"),
    ("GET    /api/v2/nonsense", 404, 5, "/api/v2/nonsense"),
    ("GET    /nonsense", 404, 5, "/nonsense"),
    ("PUT    /api/v2/regions", 404, 5, "/api/v2/regions"),
    ("POST   /api/v2/instances/x:fly", 404, 5, "x:fly"),
    ("GET    /api/v2/regions?pagesize=1", 400, 3, "pagesize"),
    ("GET    /api/v2/regions?page_size=many", 400, 3, "page_size"),
    ('POST   /api/v2/regions {"name": 5}', 400, 3, "region.name"),
    ('POST   /api/v2/regions {"name": ["eu"]}', 400, 3, "region"),
    ('POST   /api/v2/instances {"power": "SIDEWAYS"}', 400, 3, "instance.power"),
    ('POST   /api/v2/regions {"name": ', 400, 3, "end of string"),
    ("POST   /kowa.v2.RegionService/ListRegions {}", 404, 5, "RegionService"),
]


@pytest.mark.parametrize(("request_", "status", "code", "part"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_refusal_of_envoy_has_the_form_of_all_errors(
    rest: httpx.Client, request_: str, status: int, code: int, part: str
) -> None:
    method, path, body = re.fullmatch(r"(\w+)\s+(\S+)\s*(.*)", request_).groups()  # type: ignore[union-attr]
    response = rest.request(method, path, content=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    assert error.keys() == {"code", "message", "details"}
    assert error["code"] == code
    assert part in error["message"]


def test_an_error_carries_its_reason_and_the_fields(rest: httpx.Client) -> None:
    response = rest.post("/api/v2/regions", json={"description": "nameless"})
    assert response.status_code == HTTPStatus.BAD_REQUEST
    info, bad = response.json()["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["domain"], info["reason"]) == ("kowabunga", "INVALID_ARGUMENT")
    assert [violation["field"] for violation in bad["field_violations"]] == ["name"]


@pytest.mark.parametrize("path", ["regions/%ff", "regions?filter=%ff", "regions:watch?filter=%ff"])
def test_invalid_utf8_is_400(rest: httpx.Client, path: str) -> None:
    response = rest.get(f"/api/v2/{path}")
    assert (response.status_code, response.json()["code"]) == (HTTPStatus.BAD_REQUEST, 3)
    assert "the request is not a" in response.json()["message"]


@pytest.mark.parametrize("path", ["/api/v2/regions", "/api/v2/regions:watch"])
def test_a_wrong_key_is_401(rest: httpx.Client, path: str) -> None:
    response = rest.get(path, headers={"authorization": "Bearer wrong"})
    assert (response.status_code, response.json()["code"]) == (HTTPStatus.UNAUTHORIZED, 16)


def test_a_body_that_is_too_large_is_refused(rest: httpx.Client) -> None:
    response = rest.post("/api/v2/regions", json={"name": "x" * (5 << 20)})
    # Refused by Envoy or, if that was fast enough to pass its beginning on, by Kahuna.
    assert response.status_code in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.TOO_MANY_REQUESTS)
    assert response.json()["code"] == 8


def test_the_agents_stream_is_not_served(gateway: Gateway) -> None:
    headers = {"content-type": "application/grpc"}
    response = httpx.post(f"http://{gateway.plain}/kowa.fleet.v1.FleetService/Connect", headers=headers)
    assert response.headers["grpc-status"] == "12"
