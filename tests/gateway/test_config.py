"""Envoy's bootstrap configuration, as data."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import Options, address, bootstrap

LISTENING = {"plain": "127.0.0.1:8080"}
SECURE = {"listen": "0.0.0.0:443", "certificate": Path("/tls.crt"), "key": Path("/tls.key")}


def rendered(**options: Any) -> dict[str, Any]:
    """The bootstrap configuration for these options."""
    return bootstrap(Options(run_dir=Path("/run/gateway"), **options))


def listeners(**options: Any) -> dict[str, Any]:
    """The listeners of the bootstrap configuration, by name."""
    return {listener["name"]: listener for listener in rendered(**options)["static_resources"]["listeners"]}


def manager(listener: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection manager of a listener."""
    config: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return config


@pytest.mark.parametrize("option", ["plain", "admin"])
def test_only_the_tls_listener_may_be_off_loopback(option: str) -> None:
    with pytest.raises(ValueError, match=r"must be on a loopback address, not 0\.0\.0\.0"):
        rendered(**(LISTENING | {option: "0.0.0.0:8080"}))


def test_a_listener_is_required() -> None:
    with pytest.raises(ValueError, match="nothing to listen on"):
        rendered()


def test_only_the_requested_listeners_are_configured() -> None:
    assert list(listeners(**LISTENING)) == ["plain"]
    assert list(listeners(**SECURE)) == ["tls"]
    assert list(listeners(**LISTENING, **SECURE)) == ["tls", "plain"]


def test_the_listeners_differ_only_in_the_certificate() -> None:
    both = listeners(**LISTENING, **SECURE)
    (secure,), (plain,) = (both[name]["filter_chains"] for name in ("tls", "plain"))
    context = secure["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_certificates"] == [
        {"certificate_chain": {"filename": "/tls.crt"}, "private_key": {"filename": "/tls.key"}}
    ]
    assert list(plain) == ["filters"]
    assert manager(both["tls"]) == manager(both["plain"]) | {"stat_prefix": "tls"}


def test_there_is_no_admin_interface_by_default() -> None:
    assert "admin" not in rendered(**LISTENING)
    assert rendered(**LISTENING, admin="/run/admin")["admin"] == {"address": {"pipe": {"path": "/run/admin"}}}


def test_every_address_of_kahuna_is_an_endpoint() -> None:
    (cluster,) = rendered(**LISTENING, kahuna="kahuna-1:7070, kahuna-2:7070")["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    hosts = [at["endpoint"]["address"]["socket_address"]["address"] for at in group["lb_endpoints"]]
    assert hosts == ["kahuna-1", "kahuna-2"]


def test_values_are_inserted_unchanged() -> None:
    """A value is not parsed as YAML, and no placeholder in it is replaced."""
    secure = SECURE | {"key": Path("/a: [b]\n$plain")}
    context = listeners(**secure)["tls"]["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_certificates"][0]["private_key"] == {"filename": "/a: [b]\n$plain"}


def test_only_routes_with_a_body_or_a_query_are_checked() -> None:
    http = manager(listeners(**LISTENING)["plain"])

    def path_of(match: dict[str, Any]) -> str:
        return str(match["prefix"] if "prefix" in match else match["safe_regex"]["regex"])

    body_filters = [each for each in http["http_filters"] if each["name"] == "gateway.bodies"]
    assert [each.get("disabled", False) for each in body_filters] == [True]
    is_checked = {
        (path_of(route["match"]), *sorted(header["name"] for header in route["match"].get("headers", ()))): (
            "gateway.bodies" in route.get("typed_per_filter_config", {})
        )
        for route in http["route_config"]["virtual_hosts"][0]["routes"]
    }
    assert is_checked == {
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
def test_addresses_are_parsed(text: str, host: str, port: int) -> None:
    assert address(text) == {"socket_address": {"address": host, "port_value": port}}


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:99999", "host:x"])
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port, such as 127\.0\.0\.1:8443"):
        address(text)
