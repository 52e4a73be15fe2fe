"""gRPC and gRPC-Web on the port that serves REST, behind TLS."""

import ssl
import struct

import grpc
import httpx
import pytest

from kowa import errors
from kowa.client import Client
from kowa.v2 import meta_pb2, region_pb2, region_pb2_grpc
from tests.gateway.conftest import Gateway
from tests.sdk.kahunas import Kahuna

pytestmark = pytest.mark.gateway


@pytest.fixture
def channel(gateway: Gateway) -> grpc.Channel:
    """A channel that trusts the test's CA."""
    return grpc.secure_channel(gateway.tls, grpc.ssl_channel_credentials(gateway.ca.read_bytes()))


def test_grpc_through_tls(channel: grpc.Channel, kahuna: Kahuna) -> None:
    stub = region_pb2_grpc.RegionServiceStub(channel)  # type: ignore[no-untyped-call]
    key = (("authorization", f"Bearer {kahuna.key}"),)
    request = region_pb2.CreateRegionRequest(region=region_pb2.Region(name="eu"))
    made, call = stub.CreateRegion.with_call(request, metadata=key)
    assert dict(call.initial_metadata())["kowabunga-operation"]
    assert stub.GetRegion(region_pb2.GetRegionRequest(id=made.meta.id), metadata=key).name == "eu"
    events = stub.WatchRegions(region_pb2.WatchRegionsRequest(), metadata=key)
    assert [next(events).change, next(events).change] == [meta_pb2.CHANGE_PUT, meta_pb2.CHANGE_SYNCED]
    events.cancel()
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetRegion(region_pb2.GetRegionRequest(id="nope"), metadata=key)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "grpc-status-details-bin" in str(refused.value.trailing_metadata())
    channel.close()


def test_the_sdk_through_tls(gateway: Gateway, kahuna: Kahuna) -> None:
    with Client(gateway.tls, key=kahuna.key, ca=gateway.ca) as client:
        made = client.of(region_pb2.Region).create(region_pb2.Region(name="eu"))
        assert [region.meta.id for region in client.regions.list()] == [made.meta.id]
        with pytest.raises(errors.Conflict) as taken:
            client.regions.create(region_pb2.Region(name="eu"))
        assert taken.value.reason == "NAME_TAKEN"
        events = client.regions.watch()
        assert [next(events).change, next(events).change] == ["put", "synced"]
        events.close()


def test_rest_through_tls(gateway: Gateway, kahuna: Kahuna) -> None:
    trust = ssl.create_default_context(cafile=gateway.ca)
    with httpx.Client(verify=trust, headers={"authorization": f"Bearer {kahuna.key}"}) as client:
        assert client.get(f"https://{gateway.tls}/api/v2/regions").json()["regions"] == []


def test_grpc_web(gateway: Gateway, kahuna: Kahuna) -> None:
    message = region_pb2.ListRegionsRequest().SerializeToString()
    answer = httpx.post(
        f"{gateway.plain}/kowa.v2.RegionService/ListRegions",
        content=b"\0" + struct.pack(">I", len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "authorization": f"Bearer {kahuna.key}"},
    )
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    flag, length = struct.unpack(">BI", answer.content[:5])
    assert flag == 0
    assert not region_pb2.ListRegionsResponse.FromString(answer.content[5 : 5 + length]).regions
    assert b"grpc-status:0" in answer.content[5 + length :]
