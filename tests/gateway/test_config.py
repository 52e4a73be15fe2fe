"""The bootstrap as a value."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import Options, address, bootstrap

LISTENING = {"plain": "127.0.0.1:8080"}
SECURE = {"listen": "0.0.0.0:443", "certificate": Path("/tls.crt"), "key": Path("/tls.key")}


def rendered(**options: Any) -> dict[str, Any]:
    """What Envoy is started with."""
    return bootstrap(Options(run_dir=Path("/run/gateway"), **options))


def listeners(**options: Any) -> dict[str, Any]:
    """Those that Envoy is started with, by name."""
    return {listener["name"]: listener for listener in rendered(**options)["static_resources"]["listeners"]}


def manager(listener: dict[str, Any]) -> dict[str, Any]:
    """What it does with HTTP."""
    made: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return made


@pytest.mark.parametrize("what", ["plain", "admin"])
def test_only_tls_may_be_reached_from_elsewhere(what: str) -> None:
    with pytest.raises(ValueError, match=r"must be on a loopback address, not 0\.0\.0\.0"):
        rendered(**(LISTENING | {what: "0.0.0.0:8080"}))


def test_something_must_listen() -> None:
    with pytest.raises(ValueError, match="nothing to listen on"):
        rendered()


def test_there_are_the_listeners_that_are_asked_for() -> None:
    assert list(listeners(**LISTENING)) == ["plain"]
    assert list(listeners(**SECURE)) == ["tls"]
    assert list(listeners(**LISTENING, **SECURE)) == ["tls", "plain"]


def test_only_the_tls_listener_has_certificates_all_else_is_alike() -> None:
    made = listeners(**LISTENING, **SECURE)
    (secure,), (plain,) = (made[name]["filter_chains"] for name in ("tls", "plain"))
    context = secure["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_certificates"] == [
        {"certificate_chain": {"filename": "/tls.crt"}, "private_key": {"filename": "/tls.key"}}
    ]
    assert list(plain) == ["filters"]
    assert manager(made["tls"]) == manager(made["plain"]) | {"stat_prefix": "tls"}


def test_there_is_no_admin_interface_unless_asked_for() -> None:
    assert "admin" not in rendered(**LISTENING)
    assert rendered(**LISTENING, admin="/run/admin")["admin"] == {"address": {"pipe": {"path": "/run/admin"}}}


def test_every_replica_is_an_endpoint() -> None:
    (cluster,) = rendered(**LISTENING, kahuna="kahuna-1:7070, kahuna-2:7070")["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    hosts = [at["endpoint"]["address"]["socket_address"]["address"] for at in group["lb_endpoints"]]
    assert hosts == ["kahuna-1", "kahuna-2"]


def test_a_value_is_put_in_as_it_is_whatever_it_looks_like() -> None:
    """It is never read as YAML, nor as a name of another value."""
    secure = SECURE | {"key": Path("/a: [b]\n$plain")}
    context = listeners(**secure)["tls"]["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_certificates"][0]["private_key"] == {"filename": "/a: [b]\n$plain"}


def test_requests_are_read_where_a_body_or_a_query_may_be_and_nowhere_else() -> None:
    http = manager(listeners(**LISTENING)["plain"])

    def place(match: dict[str, Any]) -> str:
        return str(match["prefix"] if "prefix" in match else match["safe_regex"]["regex"])

    body_filters = [each for each in http["http_filters"] if each["name"] == "gateway.bodies"]
    assert [each.get("disabled", False) for each in body_filters] == [True]
    reads = {
        (place(route["match"]), *sorted(header["name"] for header in route["match"].get("headers", ()))): (
            "gateway.bodies" in route.get("typed_per_filter_config", {})
        )
        for route in http["route_config"]["virtual_hosts"][0]["routes"]
    }
    assert reads == {
        ("/api/", ":method", ":path", "content-length", "content-type"): False,
        ("/api/", ":method", "content-length", "content-type"): True,
        ("/api/.*:(wait|watch|console)/*", "content-type"): True,
        ("/api/", "content-type"): True,
        ("/kowa.v2.",): False,
        ("/grpc.reflection.",): False,
    }


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:443", "::1", 443), ("kahuna:7070", "kahuna", 7070)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert address(text) == {"socket_address": {"address": host, "port_value": port}}


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:99999", "host:x"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port, such as 127\.0\.0\.1:8443"):
        address(text)
