"""REST bodies with nested messages, lists, maps and another package: those of a made-up kind."""

from collections.abc import Iterator
from http import HTTPStatus

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from kowa import contract
from tests import made_up
from tests.gateway.conftest import envoy, prepared
from tests.gateway.recorder import Recording, recording

pytestmark = pytest.mark.gateway

BALANCERS = "/api/v2/balancers"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """An Envoy with the made-up kinds, in front of a Kahuna that only records its requests."""
    new_recording = Recording(httpx.Client(), [])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made_up.attributes().items():
            patch.setattr(contract, name, value)
        with recording(new_recording.calls) as kahuna:
            command, (plain, _, admin) = prepared(kahuna, tmp_path_factory.mktemp("gateway"))
            new_recording.rest.base_url = httpx.URL(f"http://{plain}")
            with envoy(command, admin), new_recording.rest:
                yield new_recording


REFUSED = [
    # path, body, path of the unknown key, message that has no such field
    (BALANCERS, '{"members": [{}, {"kaktsu": "a"}]}', "members[1].kaktsu", "Member"),
    (BALANCERS, '{"health": {"path": "/", "zoen": "a"}}', "health.zoen", "Health"),
    (BALANCERS, '{"limits": {"kaktus": {"rate": 1}, "b": {"rat": 1}}}', "limits.b.rat", "Limit"),
    (BALANCERS, '{"labels": {"any": "x"}, "lables": {}}', "lables", "Balancer"),
    (BALANCERS, '{"exposure": {"address": "a"}}', "exposure", "Balancer"),
    (f"{BALANCERS}/x:drain", '{"kaktsu": "a"}', "kaktsu", "DrainBalancerRequest"),
    (f"{BALANCERS}:rebalance", '{"without": [{"kaktsu": "a"}]}', "without[0].kaktsu", "Member"),
]


@pytest.mark.parametrize(("path", "body", "field", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_unknown_fields_of_nested_messages_are_refused_by_path(
    recorded: Recording, path: str, body: str, field: str, message: str
) -> None:
    response = recorded.request("POST", path, body)
    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json()["message"].startswith(f"{field}: is no field of {message}, which has ")
    assert not recorded.calls


BALANCER = (
    '{"farm": "f", "members": [{"kaktus": "a", "weight": 2}], "labels": {"kaktsu": "x", "": "y"}, '
    '"limits": {"what ever": {"rate": "1"}}, "health": {"path": "/", "host_name": "h"}, "named_ports": {"www": 80}}'
)


def test_nested_messages_pass_unchanged(recorded: Recording) -> None:
    response = recorded.request("POST", BALANCERS, BALANCER)
    assert response.status_code == HTTPStatus.OK, response.text
    (call,) = recorded.calls
    sent = MessageToDict(call, preserving_proto_field_name=True)["balancer"]
    assert sent == {
        "farm": "f",
        "members": [{"kaktus": "a", "weight": 2}],
        "labels": {"kaktsu": "x", "": "y"},
        "limits": {"what ever": {"rate": "1"}},
        "health": {"path": "/", "host_name": "h"},
        "named_ports": {"www": 80},
    }


def test_a_mask_may_name_a_field_of_a_nested_message(recorded: Recording) -> None:
    path = f"{BALANCERS}/x?update_mask=health.host_name,labels"
    response = recorded.request("PATCH", path, '{"health": {"host_name": "h"}}')
    assert response.status_code == HTTPStatus.OK, response.text
    (call,) = recorded.calls
    assert MessageToDict(call, preserving_proto_field_name=True)["update_mask"] == "health.hostName,labels"


def test_two_fields_of_a_oneof_are_refused(recorded: Recording) -> None:
    response = recorded.request("POST", BALANCERS, '{"address": "10.0.0.1", "network": "::/0"}')
    assert (response.status_code, recorded.calls) == (HTTPStatus.BAD_REQUEST, [])
