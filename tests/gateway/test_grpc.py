"""gRPC, gRPC-Web and REST through Envoy, plain and over TLS."""

import base64
import json
import ssl
import struct
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import pytest

from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import instance_pb2, meta_pb2, region_pb2, region_pb2_grpc
from tests.control_plane import ControlPlane
from tests.gateway.conftest import Gateway
from tests.sdk.fixtures import Kahuna

pytestmark = pytest.mark.gateway


@pytest.fixture
def channel(gateway: Gateway) -> grpc.Channel:
    """A channel that trusts the test's CA."""
    return grpc.secure_channel(gateway.tls, grpc.ssl_channel_credentials(gateway.ca.read_bytes()))


def test_grpc_through_tls(channel: grpc.Channel, kahuna: Kahuna) -> None:
    stub = region_pb2_grpc.RegionServiceStub(channel)  # type: ignore[no-untyped-call]
    auth = (("authorization", f"Bearer {kahuna.key}"),)
    request = region_pb2.CreateRegionRequest(region=region_pb2.Region(name="eu"))
    region, call = stub.CreateRegion.with_call(request, metadata=auth)
    assert dict(call.initial_metadata())["kowabunga-operation"]
    assert stub.GetRegion(region_pb2.GetRegionRequest(id=region.meta.id), metadata=auth).name == "eu"
    events = stub.WatchRegions(region_pb2.WatchRegionsRequest(), metadata=auth)
    assert [next(events).change, next(events).change] == [meta_pb2.CHANGE_PUT, meta_pb2.CHANGE_SYNCED]
    events.cancel()
    with pytest.raises(grpc.RpcError) as refused:
        stub.GetRegion(region_pb2.GetRegionRequest(id="nope"), metadata=auth)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "grpc-status-details-bin" in str(refused.value.trailing_metadata())
    channel.close()


def test_the_sdk_through_tls(gateway: Gateway, kahuna: Kahuna) -> None:
    with Client(gateway.tls, key=kahuna.key, ca=gateway.ca) as client:
        region = client.of(region_pb2.Region).create(region_pb2.Region(name="eu"))
        assert [found.meta.id for found in client.regions.list()] == [region.meta.id]
        with pytest.raises(errors.Conflict) as taken:
            client.regions.create(region_pb2.Region(name="eu"))
        assert taken.value.reason == "NAME_TAKEN"
        events = client.regions.watch()
        assert [next(events).change, next(events).change] == ["put", "synced"]
        events.close()


def test_rest_through_tls(gateway: Gateway, kahuna: Kahuna) -> None:
    ssl_context = ssl.create_default_context(cafile=gateway.ca)
    with httpx.Client(verify=ssl_context, headers={"authorization": f"Bearer {kahuna.key}"}) as client:
        assert client.get(f"https://{gateway.tls}/api/v2/regions").json()["regions"] == []


def test_grpc_web(gateway: Gateway, kahuna: Kahuna) -> None:
    message = region_pb2.ListRegionsRequest().SerializeToString()
    response = httpx.post(
        f"http://{gateway.plain}/kowa.v2.RegionService/ListRegions",
        content=b"\0" + struct.pack(">I", len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "authorization": f"Bearer {kahuna.key}"},
    )
    assert response.headers["content-type"] == "application/grpc-web+proto"
    flag, length = struct.unpack(">BI", response.content[:5])
    assert flag == 0
    assert not region_pb2.ListRegionsResponse.FromString(response.content[5 : 5 + length]).regions
    assert b"grpc-status:0" in response.content[5 + length :]


def test_a_console_works_in_rest_and_grpc_web(
    gateway: Gateway, rest: httpx.Client, wanted_instance: instance_pb2.Instance
) -> None:
    """In REST each line of the stream is a JSON message; gRPC-Web calls the same methods."""
    with Client(gateway.plain, key=rest.headers["authorization"][7:], insecure=True) as client:
        web = client.of(instance_pb2.Instance).create(wanted_instance).meta.id
    path, paste = f"/api/v2/instances/{web}", bytes(range(256)) * 256
    with rest.stream("POST", f"{path}:console") as shown:
        lines = map(json.loads, shown.iter_lines())
        session = next(lines)["session"]
        assert base64.b64decode(next(lines)["data"]) == b"login: "
        keys = {"session": session, "data": base64.b64encode(paste).decode()}
        assert rest.post(f"{path}:type-console", json=keys).json() == {"offset": str(len(paste))}
        gap = rest.post(f"{path}:type-console", json=keys | {"offset": 1 << 20})
        assert (gap.status_code, gap.json()["details"][0]["metadata"]) == (400, {"offset": str(len(paste))})
        echoed = b""
        while len(echoed) < len(paste):
            echoed += base64.b64decode(next(lines)["data"])
        assert echoed == paste.upper()  # a fake host answers in upper case
        assert rest.post(f"{path}:resize-console", json={"session": session, "rows": 24, "columns": 80}).json() == {}
        assert base64.b64decode(next(lines)["data"]) == b"24x80"
    typed = instance_pb2.TypeConsoleInstanceRequest(id=web, session=session, data=b"x").SerializeToString()
    response = rest.post(
        "/kowa.v2.InstanceService/TypeConsoleInstance",
        content=b"\0" + struct.pack(">I", len(typed)) + typed,
        headers={"content-type": "application/grpc-web+proto"},
    )
    assert response.headers["grpc-status"] == "5"  # the session has ended


SERVICES = sorted(contract.load().services)


def curl(kahuna: Kahuna, address: str, *arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    """Runs `buf curl`, which reads the contract by server reflection."""
    header = ("--header", f"authorization: Bearer {key or kahuna.key}", "--reflect-header", "*")
    command = [str(Path(sys.executable).with_name("buf")), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    return subprocess.run(
        [*command, *header, *arguments[:-1], f"http://{address}{arguments[-1]}"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("through", ["Envoy", "Kahuna"])
def test_reflection_lists_the_contract_to_authorized_callers(
    gateway: Gateway, kahuna: Kahuna, cloud: ControlPlane, through: str
) -> None:
    address = kahuna.endpoint if through == "Kahuna" else gateway.plain
    listed = curl(kahuna, address, "--list-services", "")
    assert listed.stdout.split() == SERVICES, listed.stderr
    with Client(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
        region = client.of(region_pb2.Region).create(region_pb2.Region(name="eu"))
    request = json.dumps({"id": region.meta.id})
    got = curl(kahuna, address, "--data", request, "/kowa.v2.RegionService/GetRegion")
    assert json.loads(got.stdout)["name"] == "eu", got.stderr
    methods = curl(kahuna, address, "--list-methods", "").stdout.split()
    assert set(contract.load().methods) == {f"/{method}" for method in methods if method.startswith("kowa.")}
    _, agent = cloud.add_agent()
    for key, reason in (("unknown", "not authenticated"), (agent, "permission")):
        refused = curl(kahuna, address, "--list-services", "", key=key)
        assert (refused.returncode != 0, refused.stdout) == (True, "")
        assert reason in refused.stderr
