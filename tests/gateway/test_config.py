"""The bootstrap as a value."""

from pathlib import Path
from typing import Any

import pytest

from gateway import bodies, config

SERVICES = ["kowa.v2.RegionService"]
HERE = config.Address("127.0.0.1", 8080)
KAHUNA = [config.Address("kahuna-1", 7070), config.Address("kahuna-2", 7070)]


def bootstrap(**settings: Any) -> config.Json:
    """What is rendered with these."""
    return config.bootstrap(
        config.Settings(descriptors=Path("/d"), bodies=Path("/b"), services=SERVICES, **({"kahuna": KAHUNA} | settings))
    )


@pytest.mark.parametrize("what", ["plain", "admin"])
def test_only_tls_may_be_reached_from_elsewhere(what: str) -> None:
    with pytest.raises(ValueError, match=r"must be on a loopback address, not 0\.0\.0\.0"):
        bootstrap(**{"plain": HERE, what: config.Address("0.0.0.0", 8080)})  # noqa: S104 - what is refused


def test_something_must_listen() -> None:
    with pytest.raises(ValueError, match="nothing to listen on"):
        bootstrap()


def test_there_is_no_admin_interface_unless_asked_for() -> None:
    assert "admin" not in bootstrap(plain=HERE)
    pipe = bootstrap(plain=HERE, admin=Path("/run/admin"))["admin"]
    assert pipe == {"address": {"pipe": {"path": "/run/admin"}}}


def test_every_replica_is_an_endpoint() -> None:
    (cluster,) = bootstrap(plain=HERE)["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    hosts = [at["endpoint"]["address"]["socket_address"]["address"] for at in group["lb_endpoints"]]
    assert hosts == ["kahuna-1", "kahuna-2"]


def test_requests_are_read_where_a_body_or_a_query_may_be_and_nowhere_else() -> None:
    (listener,) = bootstrap(plain=HERE)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]

    def place(match: config.Json) -> str:
        return str(match["prefix"] if "prefix" in match else match["safe_regex"]["regex"])

    body_filters = [each for each in manager["http_filters"] if each["name"] == bodies.FILTER_NAME]
    assert [each.get("disabled", False) for each in body_filters] == [True]
    without = (config.NO_BODY[0], config.NO_QUERY)
    reads = {
        (place(route["match"]), *(each in route["match"].get("headers", []) for each in without)): bodies.FILTER_NAME
        in route.get("typed_per_filter_config", {})
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
    }
    assert reads == {
        ("/api/", True, True): False,
        ("/api/", True, False): True,
        ("/api/" + config.LONG_CALL_PATHS, False, False): True,
        ("/api/", False, False): True,
        ("/kowa.v2.", False, False): False,
        ("/grpc.reflection.", False, False): False,
    }


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", config.Address("127.0.0.1", 80)),
        ("[::1]:443", config.Address("::1", 443)),
        ("kahuna:7070", config.Address("kahuna", 7070)),
    ],
)
def test_addresses(text: str, address: config.Address) -> None:
    assert config.Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:99999", "host:x"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port, such as 127\.0\.0\.1:8443"):
        config.Address.parse(text)
