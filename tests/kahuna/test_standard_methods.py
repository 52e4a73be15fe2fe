"""Features of all kinds: pages, filters, etags, request ids, plans, watches."""

import uuid

import pytest

from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import instance_pb2, meta_pb2, operation_pb2, options_pb2, region_pb2
from tests.control_plane import ControlPlane
from tests.site import make_site
from tests.waiting import until


def regions(cloud: ControlPlane, *names: str) -> list[region_pb2.Region]:
    return [cloud.add_region(name) for name in names]


def test_all_pages_together_are_the_whole_list(cloud: ControlPlane) -> None:
    regions(cloud, *(f"r{number:02}" for number in range(25)))
    kind = cloud.client.of(region_pb2.Region)
    for order in ("", "name", "name desc", "meta.create_time desc"):
        whole = [region.name for region in kind.list(order_by=order)]
        paged = [region.name for region in kind.list(order_by=order, page_size=7)]
        assert paged == whole
        assert sorted(whole) == [f"r{number:02}" for number in range(25)]
    assert next(region.name for region in kind.list(order_by="name desc")) == "r24"


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ('name = "us"', ["us"]),
        ("name != us", ["asia", "eu"]),
        ('name = "us" AND description = "far"', ["us"]),
        ('name = "us" AND description = "near"', []),
        ("description:a", ["us"]),
        ("meta.state = STATE_READY AND meta.generation >= 1 AND name < us", ["asia", "eu"]),
        ('meta.create_time > "2000-01-01T00:00:00Z"', ["asia", "eu", "us"]),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_filters_find_matching_resources(cloud: ControlPlane, condition: str, found: list[str]) -> None:
    regions(cloud, "eu", "asia")
    cloud.client.of(region_pb2.Region).create(region_pb2.Region(name="us", description="far"))
    assert [region.name for region in cloud.client.regions.list(filter=condition, order_by="name")] == found


def test_the_etag_changes_with_writable_fields_only(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    site.connect_host()
    web = cloud.client.instances.create(site.wanted("web"))
    reported = cloud.client.instances.get(web.meta.id)
    assert reported.meta.etag == site.client.instances.get(web.meta.id).meta.etag
    reported.description = "first"
    first = cloud.client.instances.update(reported, ["description"])
    assert first.meta.etag != web.meta.etag
    web.description = "second"
    with pytest.raises(errors.Conflict) as refused:
        cloud.client.instances.update(web, ["description"])
    assert refused.value.reason == "ETAG_MISMATCH"


def test_a_repeated_request_changes_nothing_and_another_with_its_id_is_refused(cloud: ControlPlane) -> None:
    method = cloud.client.of(region_pb2.Region)
    create = contract.load().kinds["Region"].service.methods["create"]
    request = region_pb2.CreateRegionRequest(region=region_pb2.Region(name="eu"), request_id=str(uuid.uuid4()))
    first = cloud.client.call(create, request)
    revision = cloud.kahuna.store.view.revision
    again = cloud.client.call(create, request)
    assert (again.resource.meta.id, again.operation_id) == (first.resource.meta.id, first.operation_id)
    assert cloud.kahuna.store.view.revision == revision
    request.region.name = "us"
    with pytest.raises(errors.Conflict) as refused:
        cloud.client.call(create, request)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len(list(method.list())) == 1


def test_a_repeated_token_request_shows_no_secret(cloud: ControlPlane) -> None:
    agent, _ = cloud.add_agent()
    create = contract.load().kinds["AgentToken"].service.methods["create"]
    request = contract.load().stub("kowa.v2.CreateAgentTokenRequest")(
        agent_token={"agent": agent.meta.id, "name": "second"}, request_id=str(uuid.uuid4())
    )
    assert cloud.client.call(create, request).resource.secret
    assert not cloud.client.call(create, request).resource.secret


def test_a_plan_returns_the_result_and_stores_nothing(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    site.connect_host()
    wanted = site.wanted("web")
    until(lambda: not list(site.client.operations.list(filter="phase = PHASE_RUNNING")), what="no running operation")
    create = contract.load().kinds["Instance"].service.methods["create"]
    revision = cloud.kahuna.store.view.revision
    request = instance_pb2.CreateInstanceRequest(instance=wanted, validate_only=True, request_id=str(uuid.uuid4()))
    planned = cloud.client.call(create, request)
    assert planned.resource.kaktus == site.host.meta.id
    assert not planned.operation_id
    request.instance.memory = 10**15
    with pytest.raises(errors.Exhausted, match="host-1: has"):
        cloud.client.call(create, request)
    assert cloud.kahuna.store.view.revision == revision
    # Planned twice, created once: the plan uses up neither the name nor the request id.
    request.validate_only, request.instance.memory = False, wanted.memory
    assert cloud.client.call(create, request).operation_id


def test_a_watch_sends_all_resources_then_each_change(cloud: ControlPlane) -> None:
    eu = cloud.add_region("eu")
    events: list[tuple[str, str]] = []
    names = {}
    for event in cloud.client.of(region_pb2.Region).watch():
        if event.change == "put" and event.resource is not None:
            names[event.resource.meta.id] = event.resource.name
            events.append(("put", event.resource.name))
        elif event.change == "removed":
            events.append(("removed", names[event.id]))
        elif event.change == "synced":
            if len(events) == 1:
                us = cloud.add_region("us")
            elif len(events) == 2:
                cloud.client.regions.delete(us.meta.id)
            elif len(events) == 3:
                break
    assert events == [("put", "eu"), ("put", "us"), ("removed", "us")]
    assert cloud.client.regions.get(eu.meta.id).name == "eu"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_every_method_is_denied_to_roles_that_its_option_does_not_name(
    cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated from the contract, so that new methods are tested, too."""
    monkeypatch.delenv("KOWABUNGA_API_KEY", raising=False)
    _, secret = cloud.add_agent()
    calls = 0
    for key, reason in (("", "UNAUTHENTICATED"), ("kowa_admin_x_y", "UNAUTHENTICATED"), (secret, "PERMISSION_DENIED")):
        with Client(cloud.settings.api, key=key, insecure=True) as caller:
            for method in contract.load().methods.values():
                assert method.access.role != options_pb2.ROLE_UNSPECIFIED, f"{method.name} names no role"
                request = contract.load().stub(method.request.name)()
                with pytest.raises(errors.Denied) as refused:
                    list(caller.stream(method, request)) if method.streams else caller.call(method, request)
                assert refused.value.reason == reason, method.name
                calls += 1
    assert calls > 200


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_cancelled_operation_stays_cancelled(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    started = site.add_volume("data")
    cancelled = site.client.call(
        contract.load().kinds["Operation"].service.methods["cancel"],
        operation_pb2.CancelOperationRequest(id=started.operation_id),
    ).resource
    assert cancelled.phase == operation_pb2.PHASE_CANCELLED
    site.connect_host()
    until(
        lambda: site.client.volumes.get(started.resource.meta.id).meta.state == meta_pb2.STATE_READY,
        what="the volume, whose operation is cancelled",
    )
    assert site.client.operations.get(started.operation_id).phase == operation_pb2.PHASE_CANCELLED
