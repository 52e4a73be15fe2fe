"""Responses to hostile requests: small enough to arrive, and without internals of Kahuna."""

from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf import duration_pb2

from kahuna.domain.placement import no_host
from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import (
    agent_token_pb2,
    instance_pb2,
    kaktus_pb2,
    meta_pb2,
    operation_pb2,
    region_pb2,
    subnet_pb2,
    volume_pb2,
    zone_pb2,
)
from tests.control_plane import GIB, ControlPlane
from tests.site import make_site

KINDS = contract.load().kinds
SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
# gRPC's default limit for headers, in bytes.
MAX_HEADER_BYTES = 8192
PLAIN = "".join(chr(code) for code in range(ord(" "), ord("~") + 1) if chr(code) != "%")


def send_raw(cloud: ControlPlane, path: str, data: bytes) -> Any:
    """Sends raw bytes to a method; returns its refusal."""
    with grpc.insecure_channel(cloud.settings.api) as channel:
        call = channel.unary_stream(path, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError) as refused:
            list(call(data, metadata=(("authorization", f"Bearer {cloud.key}"),)))
    return refused.value


def header_bytes(refusal: Any) -> int:
    """The most bytes a refusal takes in headers: the message percent-encoded, and its status in base64."""
    details = dict(refusal.trailing_metadata())["grpc-status-details-bin"]
    return len(quote(refusal.details(), safe=PLAIN)) + 4 * len(details) // 3


@SQLITE
@pytest.mark.parametrize("id_", ["x" * 100_000, "😀" * 25_000, "%" * 100_000], ids=["long", "wide", "escaped"])
def test_a_long_id_is_shortened_in_the_error(cloud: ControlPlane, id_: str) -> None:
    request = region_pb2.GetRegionRequest(id=id_).SerializeToString()
    refusal = send_raw(cloud, "/kowa.v2.RegionService/GetRegion", request)
    assert refusal.code() is grpc.StatusCode.NOT_FOUND
    assert "..." in refusal.details()
    assert header_bytes(refusal) < MAX_HEADER_BYTES // 2
    with pytest.raises(errors.Invalid, match=r"region: no region has the id '.{61}\.\.\.'; list them"):
        cloud.client.zones.begin_create(zone_pb2.Zone(region=id_, name="eu-a"))


def test_the_most_frequent_of_many_reasons_are_in_the_message() -> None:
    refused = {f"host-{number:02}": f"has {number} of 64 CPUs free, 100 asked" for number in range(20)}
    refusal = no_host(refused | {f"rack-{number}": "is cordoned" for number in range(3)}, "zone")
    assert refusal.message.startswith(
        "no host of the zone can hold the machine (3 hosts: is cordoned; host-00: has 0 of 64 CPUs free, 100 asked; "
    )
    assert refusal.message.endswith("; and 13 more); ask for less or add a host")
    assert len(refusal.details) == 23


@SQLITE
@pytest.mark.parametrize("wrong", ["x", "ß" * 100, "😀" * 100, "%" * 100], ids=["short", "wide", "wider", "escaped"])
def test_the_first_of_many_violations_are_in_the_error(cloud: ControlPlane, wrong: str) -> None:
    site = make_site(cloud)
    subnet = subnet_pb2.Subnet(vnet=site.vnet.meta.id, name="b", cidr="10.9.0.0/24", dns=[wrong] * 300)
    request = subnet_pb2.CreateSubnetRequest(subnet=subnet).SerializeToString()
    refusal = send_raw(cloud, "/kowa.v2.SubnetService/CreateSubnet", request)
    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert header_bytes(refusal) < 0.9 * MAX_HEADER_BYTES
    with pytest.raises(errors.Invalid) as refused:
        cloud.client.subnets.begin_create(subnet)
    assert refused.value.reason == "INVALID_ARGUMENT"
    assert refused.value.violations[0].description == "has 300 elements, 4 at most"
    assert 3 < len(refused.value.violations) < 300


@SQLITE
@pytest.mark.parametrize(
    "query",
    [{"filter": "x" * 4000}, {"filter": 'meta.state = "' + "😀" * 4000 + '"'}, {"order_by": "😀" * 255}],
    ids=str,
)
def test_a_long_invalid_query_is_shortened_in_the_error(cloud: ControlPlane, query: dict[str, Any]) -> None:
    with pytest.raises(errors.Invalid) as refused:
        list(cloud.client.regions.list(**query))
    assert refused.value.violations[0].field in query


@SQLITE
def test_every_method_refuses_bytes_that_are_not_its_request(cloud: ControlPlane) -> None:
    """Generated from the contract, so that new methods are tested, too."""
    truncated, invalid_utf8 = b"\x0a\x05a", b"\x0a\x01\xff"
    for method in contract.load().methods.values():
        starts_with_text = next(iter(method.request.fields.values())).type == "string"
        for data in (truncated, invalid_utf8) if starts_with_text else (truncated,):
            refusal = send_raw(cloud, method.path, data)
            message = f"the request is not a {method.request.name.rpartition('.')[2]}"
            assert (refusal.code(), refusal.details()) == (grpc.StatusCode.INVALID_ARGUMENT, message)


@pytest.mark.parametrize("wrong", ["\0", "a\0b", "00000000-0000-4000-8000-00000000000\0"], ids=repr)
def test_an_id_with_a_nul_is_not_found(cloud: ControlPlane, wrong: str) -> None:
    site = make_site(cloud)
    project, pool = site.project.meta.id, site.pool.meta.id
    client = cloud.client
    for call in (
        lambda: client.regions.get(wrong),
        lambda: client.regions.begin_delete(wrong),
        lambda: client.instances.begin("start", wrong),
        lambda: client.regions.begin_update(region_pb2.Region(meta=meta_pb2.Meta(id=wrong), description="x")),
    ):
        with pytest.raises(errors.NotFound, match=r"no (region|instance) has the id"):
            call()
    for wanted in (
        zone_pb2.Zone(region=wrong, name="b"),
        kaktus_pb2.Kaktus(zone=site.zone.meta.id, name="b", agent=wrong),
        volume_pb2.Volume(project=project, name="b", storage_pool=pool, size=GIB, template=wrong),
        instance_pb2.Instance(
            project=project, name="b", zone=site.zone.meta.id, vcpus=1, memory=GIB, volumes=[wrong], adapters=[wrong]
        ),
    ):
        with pytest.raises(errors.Invalid, match="has the id"):
            client.of(type(wanted)).begin_create(wanted)


@pytest.mark.parametrize("wrong", ["\0", "a\nb", "\x7f", "x" * 65], ids=repr)
def test_a_request_id_with_control_characters_or_too_long_is_refused(cloud: ControlPlane, wrong: str) -> None:
    request = region_pb2.CreateRegionRequest(region=region_pb2.Region(name="eu"), request_id=wrong)
    with pytest.raises(errors.Invalid, match=r"request_id: .* is no request id"):
        cloud.client.call(KINDS["Region"].service.methods["create"], request)
    assert not list(cloud.client.regions.list())


@pytest.mark.parametrize(
    ("reason", "stored"),
    [("fire\0drill", "fire drill"), ("a\r\nb\tc", "a b c"), ("\x1b[31mred\x7f", " [31mred "), ("Übung 😀", "Übung 😀")],
)
def test_control_characters_in_a_reason_become_spaces(cloud: ControlPlane, reason: str, stored: str) -> None:
    with Client(cloud.settings.api, key=cloud.key, insecure=True, reason=reason) as caller:
        caller.of(region_pb2.Region).create(region_pb2.Region(name="eu"))
    assert [operation.reason for operation in cloud.client.operations.list()] == [stored]


@SQLITE
@pytest.mark.parametrize("seconds", [-1, 3601, 10**12, 315_576_000_000, 2**62, -(2**62)])
def test_a_timeout_outside_one_hour_is_refused(cloud: ControlPlane, seconds: int) -> None:
    request = operation_pb2.WaitOperationRequest(id="x", timeout=duration_pb2.Duration(seconds=seconds))
    with pytest.raises(errors.Invalid, match=r"timeout: is .* s, 0 to 3600 s"):
        cloud.client.call(KINDS["Operation"].service.methods["wait"], request)


@SQLITE
def test_a_plan_of_a_token_shows_no_secret(cloud: ControlPlane) -> None:
    agent, _ = cloud.add_agent()
    token = agent_token_pb2.AgentToken(agent=agent.meta.id, name="second")
    request = agent_token_pb2.CreateAgentTokenRequest(agent_token=token, validate_only=True)
    assert not cloud.client.call(KINDS["AgentToken"].service.methods["create"], request).resource.secret


@SQLITE
def test_a_resource_can_be_read_edited_and_sent_back_whole(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    site.connect_host()
    web = cloud.client.instances.create(site.wanted("web"))
    web.description = "edited"
    assert (bool(web.kaktus), bool(web.status.power)) == (True, True)
    changed = cloud.client.instances.begin_update(web).resource
    assert (changed.description, changed.kaktus) == ("edited", web.kaktus)
    with pytest.raises(errors.Invalid, match="update_mask: kaktus is the server's to fill"):
        cloud.client.instances.begin_update(changed, ["kaktus"])


@SQLITE
def test_deleting_a_parent_is_refused_with_all_its_children(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    for name in ("second", "third"):
        token = agent_token_pb2.AgentToken(agent=site.agent.meta.id, name=name)
        cloud.client.of(agent_token_pb2.AgentToken).create(token)
    message = "agent agent-1 has 3 agent-tokens: first, second, third, 1 kaktus: host-1; take it from host-1 or delete"
    with pytest.raises(errors.Conflict, match=message):
        cloud.client.agents.begin_delete(site.agent.meta.id)
    cloud.add_host(site.zone, "host-2")
    cloud.add_host(site.zone, "host-3")
    with pytest.raises(errors.Conflict, match="3 kaktuses: host-1, host-2, host-3; delete them first"):
        cloud.client.zones.begin_delete(site.zone.meta.id)
