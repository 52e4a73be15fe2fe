"""What a Python program may rely on when things go wrong."""

import uuid
from typing import Any

import grpc
import pytest

from kowa import errors
from kowa.calls import Event, judged
from kowa.client import Client
from kowa.v2.operation_pb2 import PHASE_DONE, PHASE_SUPERSEDED, Operation
from kowa.v2.region_pb2 import Region
from tests.fake_kahuna import KEY, Fake
from tests.sdk.kahunas import Kahuna


@pytest.fixture
def kahuna(fake: Fake) -> Kahuna:
    """One that fails on purpose."""
    return Kahuna(fake.endpoint, KEY)


def test_waiting_has_an_end_and_the_operation_goes_on(client: Client, fake: Fake) -> None:
    begun = client.regions.begin_create(Region(name="slow"))
    with pytest.raises(errors.OperationPending, match="CreateRegion slow is still under way: The fake wants it so"):
        client.operations.wait(begun.operation_id, 0.05)
    fake.finish()
    assert client.operations.wait(begun.operation_id).phase == PHASE_DONE


def test_what_did_not_come_about_is_an_error(client: Client) -> None:
    with pytest.raises(errors.OperationFailed, match="CreateRegion doomed failed: The fake wants it so") as failed:
        client.regions.create(Region(name="doomed"))
    assert failed.value.operation.target_name == "doomed"


def test_what_another_change_overtook_is_an_error_that_names_it() -> None:
    stop = Operation(method="StopInstance", target_name="web", phase=PHASE_SUPERSEDED)
    stop.message = "superseded by UpdateInstance"
    with pytest.raises(errors.OperationFailed, match=r"^StopInstance web superseded by UpdateInstance$"):
        judged(stop)


def test_a_refusal_may_be_long(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    async def refuse(_fake: Fake, _kind: object, _request: object, context: Any) -> None:
        hosts = ", ".join(f"host-{number}: has no room" for number in range(1000))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, hosts)

    monkeypatch.setattr(Fake, "_get", refuse)
    client: Client = request.getfixturevalue("client")
    with pytest.raises(errors.Exhausted, match="host-999: has no room"):
        client.regions.get("x")


def test_a_refusal_whose_details_are_not_kahunas() -> None:
    refused = errors.from_status("NOT_FOUND", "a proxy's page", b"\xff\xff\xff")
    assert (type(refused), refused.message, refused.reason) == (errors.NotFound, "a proxy's page", "")


def test_a_change_is_tried_again_with_the_same_request_id(client: Client, fake: Fake) -> None:
    fake.unavailable = 2
    client.regions.begin_create(Region(name="eu"))
    ids = [request.request_id for _, request, _ in fake.calls]  # type: ignore[attr-defined]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert uuid.UUID(ids[0])


def test_trying_again_has_an_end(client: Client, fake: Fake) -> None:
    fake.unavailable = 1000
    with pytest.raises(errors.Unavailable, match="Kahuna is starting"):
        client.regions.get("x")
    assert len(fake.calls) == 5


def test_a_refusal_is_not_tried_again(client: Client, fake: Fake) -> None:
    with pytest.raises(errors.Exhausted, match="No host has room"):
        client.regions.create(Region(name="too-big"))
    assert len(fake.calls) == 1


def test_a_watch_that_breaks_goes_on_where_it_was(client: Client, fake: Fake) -> None:
    client.regions.create(Region(name="eu"))
    seen: list[Event[Region]] = []
    for event in client.of(Region).watch():
        seen.append(event)
        if len(seen) == 2:
            fake.cut()
            client.regions.create(Region(name="us"))
        if event.resource and event.resource.name == "us":
            break
    names = [event.resource.name for event in seen if event.resource]
    assert names == ["eu", "us"], "nothing is lost, and what was synced does not come again"


def test_why_is_sent_along(fake: Fake) -> None:
    with Client(fake.endpoint, key=KEY, insecure=True, reason="100 % sûr") as client:
        client.regions.create(Region(name="eu"))
    assert fake.calls[0][2]["kowabunga-reason"] == "100 %25 s%C3%BBr"
