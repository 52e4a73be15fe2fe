"""The limits for unknown peers of a gateway: memory, connections, and their time."""

import contextlib
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from kowa.client import Client
from kowa.v2.instance_pb2 import Instance
from kowa.v2.project_pb2 import Project
from tests.fake_kahuna import KEY, FakeKahuna
from tests.gateway.conftest import Certificate, serving_with_limits
from tests.gateway.recorder import Recording
from tests.sdk.fixtures import Kahuna
from tests.waiting import until

pytestmark = pytest.mark.gateway

MIB = 1 << 20
LONG_CALL_MAX_BYTES = 64 << 10
SOCKET_TIMEOUT_S = 10  # far more than the timeouts of the tests, far less than Envoy's others
UNFINISHED_REQUEST = b"POST /api/v2/regions HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n"


@contextlib.contextmanager
def peer(address: str, data: bytes = b"") -> Iterator[socket.socket]:
    """A connection on which only this is sent."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), SOCKET_TIMEOUT_S) as connection:
        connection.sendall(data)
        yield connection


def answered(peers: list[socket.socket]) -> list[socket.socket]:
    """The connections that have received something."""
    return select.select(peers, [], [], 0)[0]


def test_idle_connections_end_except_watches_and_consoles(
    kahuna: Kahuna, wanted_instance: Instance, tmp_path: Path
) -> None:
    with (
        serving_with_limits(kahuna.endpoint, tmp_path, idle_timeout="1s", max_stream_duration="1s") as (plain, _, _),
        Client(plain, key=kahuna.key, insecure=True) as client,
        httpx.Client(base_url=f"http://{plain}", headers={"authorization": f"Bearer {kahuna.key}"}) as rest,
        rest.stream("GET", "/api/v2/projects:watch") as watch,
        rest.stream("GET", "/api/v2/projects:watch", content='{"filter": ""}') as watch_with_body,
    ):
        web = client.of(Instance).create(wanted_instance)
        shown = client.instances.console(web.meta.id)
        session = next(shown).session
        assert next(shown).data == b"login: "
        with peer(plain) as silent:
            assert silent.recv(1) == b""
        client.instances.type_console(web.meta.id, session=session, data=b"root")
        assert next(shown).data == b"ROOT"
        shown.close()
        client.of(Project).create(Project(name="late"))
        for response in (watch, watch_with_body):
            assert any('"late"' in line for line in response.iter_lines())


def test_a_missing_tls_handshake_times_out(fake_kahuna: FakeKahuna, certificate: Certificate, tmp_path: Path) -> None:
    options = ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    with (
        serving_with_limits(fake_kahuna.endpoint, tmp_path, *options, transport_socket_connect_timeout="0.5s") as (
            _,
            tls,
            _,
        ),
        peer(tls) as silent,
    ):
        assert silent.recv(1) == b""


def test_a_missing_body_times_out(fake_kahuna: FakeKahuna, tmp_path: Path) -> None:
    with serving_with_limits(fake_kahuna.endpoint, tmp_path, max_stream_duration="1s") as (plain, _, _):
        for slow in (UNFINISHED_REQUEST, UNFINISHED_REQUEST.replace(b"host", b"grpc-timeout: 1H\r\nhost")):
            with peer(plain, slow) as connection:
                assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_waiting_for_an_operation_is_limited_only_by_its_caller(fake_kahuna: FakeKahuna, tmp_path: Path) -> None:
    with (
        serving_with_limits(fake_kahuna.endpoint, tmp_path, max_stream_duration="1s") as (plain, _, _),
        httpx.Client(base_url=f"http://{plain}", headers={"authorization": f"Bearer {KEY}"}) as rest,
        ThreadPoolExecutor() as executor,
    ):
        operation = rest.post("/api/v2/regions", json={"name": "slow"}).headers["kowabunga-operation"]
        waiting = executor.submit(
            rest.post, f"/api/v2/operations/{operation}:wait", json={"timeout": "60s"}, timeout=60
        )
        until(lambda: fake_kahuna.calls[-1][0] == "WaitOperation", what="the wait is under way")
        with peer(plain, UNFINISHED_REQUEST) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        fake_kahuna.finish()
        assert waiting.result().json()["phase"] == "PHASE_DONE"


def test_long_calls_have_small_bodies(recorded: Recording) -> None:
    small = b" " * (LONG_CALL_MAX_BYTES - 2) + b"{}"
    for method, path in (("POST", "operations/x:wait"), ("GET", "regions:watch"), ("POST", "instances/x:console")):
        assert recorded.request(method, f"/api/v2/{path}", small).status_code == HTTPStatus.OK
        refused = recorded.request(method, f"/api/v2/{path}", b" " + small)
        assert refused.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_the_memory_of_unfinished_calls_is_limited(fake_kahuna: FakeKahuna, tmp_path: Path) -> None:
    max_mib = 128
    options = ("--max-memory-mib", str(max_mib))
    with (
        serving_with_limits(fake_kahuna.endpoint, tmp_path, *options, refresh_interval="0.01s") as (plain, _, admin),
        httpx.Client(base_url=f"http://{plain}", headers={"authorization": f"Bearer {KEY}"}) as rest,
        rest.stream("GET", "/api/v2/regions:watch") as watch,
    ):

        def allocated() -> int:
            return int(httpx.get(f"http://{admin}/memory").json()["allocated"])

        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(peer(plain, UNFINISHED_REQUEST)) for _ in range(max_mib // 2)]
            until(
                lambda: "downstream_rq_active: 65" in httpx.get(f"http://{admin}/stats").text,
                what="all requests are active",
            )
            sent = 0
            for connection in peers:
                connection.setblocking(False)
                sent += connection.send(b" " * 3_900_000)
                until(lambda least=0.9 * sent: answered(peers) or allocated() > least, what="Envoy has it")  # type: ignore[misc]
                if answered(peers):
                    break
            assert answered(peers)[0].recv(100).startswith(b"HTTP/1.1 500 ")
            assert allocated() < max_mib * 1.2 * MIB
            assert rest.get("/api/v2/regions").is_server_error
        until(lambda: rest.post("/api/v2/regions", json={"name": "late"}).is_success, what="calls are accepted again")
        assert any('"late"' in line for line in watch.iter_lines())
