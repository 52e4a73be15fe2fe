"""The SDK's clients when things go wrong: outages, failed operations, closed clients."""

import asyncio
import pickle
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from kowa import calls, errors
from kowa.aio import AsyncClient
from kowa.calls import Event, raise_unless_done
from kowa.client import Client
from kowa.v2.operation_pb2 import PHASE_DONE, PHASE_SUPERSEDED, Operation
from kowa.v2.region_pb2 import Region
from tests.fake_kahuna import KEY, FakeKahuna
from tests.sdk.fixtures import TIMEOUT_S, Kahuna, first
from tests.waiting import until

FAILING_CALLS = 3  # more than gRPC's single attempt under `grpc_without_retries`


@pytest.fixture
def kahuna(fake_kahuna: FakeKahuna) -> Kahuna:
    """A fake Kahuna, which fails on purpose."""
    return Kahuna(fake_kahuna.endpoint, KEY)


@pytest.fixture
def grpc_without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches off gRPC's retries, so that only the client's own retries are tested."""
    monkeypatch.setattr(calls, "OPTIONS", (("grpc.enable_retries", 0),))


def test_a_wait_times_out_and_the_operation_goes_on(client: Client, fake_kahuna: FakeKahuna) -> None:
    started = client.regions.begin_create(Region(name="slow"))
    with pytest.raises(errors.OperationPending, match="CreateRegion slow is still under way: The fake wants it so"):
        client.operations.wait(started.operation_id, 0.05)
    fake_kahuna.finish()
    assert client.operations.wait(started.operation_id).phase == PHASE_DONE


@pytest.mark.slow
@pytest.mark.usefixtures("grpc_without_retries")
def test_a_wait_goes_on_after_an_outage(client: Client, fake_kahuna: FakeKahuna) -> None:
    started = client.regions.begin_create(Region(name="slow"))
    fake_kahuna.finish()
    fake_kahuna.unavailable = FAILING_CALLS
    assert client.operations.wait(started.operation_id, TIMEOUT_S).phase == PHASE_DONE

    async def run() -> None:
        fake_kahuna.unavailable = FAILING_CALLS
        async with AsyncClient(fake_kahuna.endpoint, key=KEY, insecure=True) as client:
            assert (await client.operations.wait(started.operation_id, TIMEOUT_S)).phase == PHASE_DONE

    asyncio.run(run())


@pytest.mark.usefixtures("grpc_without_retries")
def test_a_wait_for_an_unreachable_kahuna_times_out(client: Client, fake_kahuna: FakeKahuna) -> None:
    started = client.regions.begin_create(Region(name="slow"))
    fake_kahuna.unavailable = 1000
    with pytest.raises(errors.Unavailable, match="Kahuna is starting"):
        client.operations.wait(started.operation_id, 0.1)


def test_a_clients_limits_apply_to_operations_and_calls(fake_kahuna: FakeKahuna) -> None:
    with Client(fake_kahuna.endpoint, key=KEY, insecure=True, operation_limit=0.05) as client:
        started = client.regions.begin_create(Region(name="slow"))
        with pytest.raises(errors.OperationPending):
            client.operations.wait(started.operation_id)
        with pytest.raises(errors.OperationPending):
            client.regions.create(Region(name="slow"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(endpoint, key=KEY, insecure=True, call_limit=0.05) as client:
            with pytest.raises(errors.Unavailable) as late:
                client.regions.get("x")
            assert late.value.code == "DEADLINE_EXCEEDED"


def test_a_failed_operation_is_an_error(client: Client) -> None:
    with pytest.raises(errors.OperationFailed, match="CreateRegion doomed failed: The fake wants it so") as failed:
        client.regions.create(Region(name="doomed"))
    assert failed.value.operation.target_name == "doomed"


def test_a_superseded_operation_is_an_error_that_names_the_newer_change() -> None:
    stop = Operation(method="StopInstance", target_name="web", phase=PHASE_SUPERSEDED)
    stop.message = "superseded by UpdateInstance"
    with pytest.raises(errors.OperationFailed, match=r"^StopInstance web superseded by UpdateInstance$"):
        raise_unless_done(stop)


def test_a_long_error_message_arrives(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    async def refuse(_fake: FakeKahuna, _kind: object, _request: object, context: Any) -> None:
        hosts = ", ".join(f"host-{number}: has no room" for number in range(1000))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, hosts)

    monkeypatch.setattr(FakeKahuna, "_get", refuse)
    client: Client = request.getfixturevalue("client")
    with pytest.raises(errors.Exhausted, match="host-999: has no room"):
        client.regions.get("x")


def test_an_error_with_undecodable_details_keeps_its_message() -> None:
    refused = errors.from_status("NOT_FOUND", "a proxy's page", b"\xff\xff\xff")
    assert (type(refused), refused.message, refused.reason) == (errors.NotFound, "a proxy's page", "")


def test_a_change_is_retried_with_the_same_request_id(client: Client, fake_kahuna: FakeKahuna) -> None:
    fake_kahuna.unavailable = 2
    client.regions.begin_create(Region(name="eu"))
    ids = [request.request_id for _, request, _ in fake_kahuna.calls]  # type: ignore[attr-defined]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert uuid.UUID(ids[0])


@pytest.mark.slow
def test_retries_end_after_five_attempts(client: Client, fake_kahuna: FakeKahuna) -> None:
    fake_kahuna.unavailable = 1000
    with pytest.raises(errors.Unavailable, match="Kahuna is starting"):
        client.regions.get("x")
    assert len(fake_kahuna.calls) == 5


def test_a_refusal_is_not_retried(client: Client, fake_kahuna: FakeKahuna) -> None:
    with pytest.raises(errors.Exhausted, match="No host has room"):
        client.regions.create(Region(name="too-big"))
    assert len(fake_kahuna.calls) == 1


def test_a_broken_watch_resumes_at_its_revision(client: Client, fake_kahuna: FakeKahuna) -> None:
    client.regions.create(Region(name="eu"))
    received: list[Event[Region]] = []
    events = client.of(Region).watch()
    while not (received and received[-1].resource and received[-1].resource.name == "us"):
        received += first(1, events)
        if len(received) == 2:
            fake_kahuna.cut()
            client.regions.create(Region(name="us"))
    names = [event.resource.name for event in received if event.resource]
    assert names == ["eu", "us"], "no event is lost or repeated"


@pytest.mark.slow
@pytest.mark.usefixtures("grpc_without_retries")
def test_a_watch_goes_on_after_an_outage(client: Client, fake_kahuna: FakeKahuna) -> None:
    events = client.of(Region).watch()
    assert [event.change for event in first(1, events)] == ["synced"]
    fake_kahuna.unavailable = FAILING_CALLS
    fake_kahuna.cut()
    assert [event.change for event in first(1, events)] == ["synced"]
    assert fake_kahuna.unavailable == 0

    async def run() -> None:
        async with AsyncClient(fake_kahuna.endpoint, key=KEY, insecure=True) as client, asyncio.timeout(TIMEOUT_S):
            events = client.of(Region).watch()
            assert (await anext(events)).change == "synced"
            fake_kahuna.unavailable = FAILING_CALLS
            fake_kahuna.cut()
            assert (await anext(events)).change == "synced"

    asyncio.run(run())


@pytest.mark.usefixtures("grpc_without_retries")
def test_a_watch_that_cannot_start_raises_the_reason(client: Client, fake_kahuna: FakeKahuna) -> None:
    fake_kahuna.unavailable = 1000
    with pytest.raises(errors.Unavailable, match="Kahuna is starting"):
        first(1, client.of(Region).watch(revision=1))


def test_a_closed_client_raises_closed(client: Client, fake_kahuna: FakeKahuna, kahuna: Kahuna) -> None:
    events = client.of(Region).watch()
    first(1, events)
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, events)
        client.close()
        with pytest.raises(errors.Closed):
            waiting.result(TIMEOUT_S)
    with pytest.raises(errors.Closed, match="the client is closed; make another"):
        client.regions.get("x")
    with pytest.raises(errors.Closed):
        list(client.regions.watch())

    async def run() -> None:
        client = AsyncClient(fake_kahuna.endpoint, key=KEY, insecure=True)
        events = client.of(Region).watch()
        async with asyncio.timeout(TIMEOUT_S):
            await anext(events)
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(errors.Closed):
                await waiting
            with pytest.raises(errors.Closed, match="the client is closed; make another"):
                await client.regions.get("x")
            with pytest.raises(errors.Closed):
                await anext(client.of(Region).watch())

    asyncio.run(run())


@pytest.mark.usefixtures("grpc_without_retries")
def test_a_closed_client_does_not_wait_for_kahuna(
    client: Client, fake_kahuna: FakeKahuna, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PAUSES_S", (1000.0, 1000.0))
    started = client.regions.begin_create(Region(name="slow"))
    fake_kahuna.unavailable = 1
    with ThreadPoolExecutor(1) as waiter:
        waiting = waiter.submit(client.operations.wait, started.operation_id, 2000)
        until(lambda: not fake_kahuna.unavailable, what="a pause")
        client.close()
        with pytest.raises(errors.Closed):
            waiting.result(TIMEOUT_S)


FAILED = Operation(method="StopInstance", target_name="web", phase=PHASE_SUPERSEDED)


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("no region", code="NOT_FOUND", reason="NOT_FOUND", metadata={"id": "x"}),
        errors.Invalid("name: is required", violations=(errors.Violation("name", "is required"),)),
        errors.OperationFailed("it failed", operation=FAILED),
        errors.OperationPending("it goes on", operation=FAILED),
        errors.Closed("it is closed", code="CANCELLED"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_can_be_pickled(error: errors.KowaError) -> None:
    unpickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled here
    assert (type(unpickled), str(unpickled), vars(unpickled)) == (type(error), str(error), vars(error))


def test_the_reason_is_sent_with_each_call(fake_kahuna: FakeKahuna) -> None:
    with Client(fake_kahuna.endpoint, key=KEY, insecure=True, reason="100 % sûr") as client:
        client.regions.create(Region(name="eu"))
    assert fake_kahuna.calls[0][2]["kowabunga-reason"] == "100 %25 s%C3%BBr"


def test_a_call_cancelled_by_a_stopping_kahuna_is_an_outage() -> None:
    """So that it is retried where that is safe."""
    assert isinstance(errors.from_status("CANCELLED", "CANCELLED", b""), errors.Unavailable)
