"""Messages within messages, lists, maps and a package of their own in REST bodies: a made-up kind says which."""

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
    """An Envoy that knows the made-up kinds, in front of a Kahuna that only keeps what it is sent."""
    made = Recording(httpx.Client(), [])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made_up.attributes().items():
            patch.setattr(contract, name, value)
        with recording(made.calls) as kahuna:
            command, (plain, _, admin) = prepared(kahuna, tmp_path_factory.mktemp("gateway"))
            made.rest.base_url = httpx.URL(f"http://{plain}")
            with envoy(command, admin), made.rest:
                yield made


REFUSED = [
    # path, body, the key, is no field of
    (BALANCERS, '{"members": [{}, {"kaktsu": "a"}]}', "members[1].kaktsu", "Member"),
    (BALANCERS, '{"health": {"path": "/", "zoen": "a"}}', "health.zoen", "Health"),
    (BALANCERS, '{"limits": {"kaktus": {"rate": 1}, "b": {"rat": 1}}}', "limits.b.rat", "Limit"),
    (BALANCERS, '{"labels": {"any": "x"}, "lables": {}}', "lables", "Balancer"),
    (BALANCERS, '{"exposure": {"address": "a"}}', "exposure", "Balancer"),
    (f"{BALANCERS}/x:drain", '{"kaktsu": "a"}', "kaktsu", "DrainBalancerRequest"),
    (f"{BALANCERS}:rebalance", '{"without": [{"kaktsu": "a"}]}', "without[0].kaktsu", "Member"),
]


@pytest.mark.parametrize(("path", "body", "field", "of"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_names_no_field_of_a_part_is_refused_with_its_place(
    recorded: Recording, path: str, body: str, field: str, of: str
) -> None:
    answer = recorded.ask("POST", path, body)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["message"].startswith(f"{field}: is no field of {of}, which has ")
    assert not recorded.calls


WHOLE = (
    '{"farm": "f", "members": [{"kaktus": "a", "weight": 2}], "labels": {"kaktsu": "x", "": "y"}, '
    '"limits": {"what ever": {"rate": "1"}}, "health": {"path": "/", "host_name": "h"}, "named_ports": {"www": 80}}'
)


def test_parts_go_through_as_they_are(recorded: Recording) -> None:
    answer = recorded.ask("POST", BALANCERS, WHOLE)
    assert answer.status_code == HTTPStatus.OK, answer.text
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


def test_a_mask_may_lead_into_a_part(recorded: Recording) -> None:
    path = f"{BALANCERS}/x?update_mask=health.host_name,labels"
    answer = recorded.ask("PATCH", path, '{"health": {"host_name": "h"}}')
    assert answer.status_code == HTTPStatus.OK, answer.text
    (call,) = recorded.calls
    assert MessageToDict(call, preserving_proto_field_name=True)["update_mask"] == "health.hostName,labels"


def test_of_what_excludes_each_other_one_is_taken(recorded: Recording) -> None:
    answer = recorded.ask("POST", BALANCERS, '{"address": "10.0.0.1", "network": "::/0"}')
    assert (answer.status_code, recorded.calls) == (HTTPStatus.BAD_REQUEST, [])
