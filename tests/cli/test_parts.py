"""Nested messages as options: without JSON, with names instead of ids; and verbs without a target."""

from collections.abc import Iterator
from typing import Any

import click
import pytest
from google.protobuf.json_format import MessageToDict

from kowa import contract
from kowa.client import Client
from kowa.v2.kaktus_pb2 import Kaktus
from kowa.v2.zone_pb2 import Zone
from kowactl.groups import KindGroup
from kowactl.main import cli
from tests.cli.conftest import Kowactl
from tests.fake_kahuna import KEY, FakeKahuna
from tests.made_up import made_up


@pytest.fixture(autouse=True)
def contract_with_made_up_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the made-up kinds to the contract."""
    monkeypatch.setattr(contract, "load", made_up)


@pytest.fixture
def fake_kahuna(contract_with_made_up_kinds: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKahuna]:
    """A fake Kahuna with a farm called north, hosts a and b, zone eu, and the balancer web."""
    fake_kahuna = FakeKahuna()
    fake_kahuna.start()
    with Client(fake_kahuna.endpoint, key=KEY, insecure=True) as client:
        named_resources: list[Any] = [Kaktus(name="a"), Kaktus(name="b"), Zone(name="eu")]
        for resource in (*named_resources, stub("Farm", name="north"), stub("Balancer", name="web")):
            ids[resource.name] = client.of(type(resource)).create(resource).meta.id
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", fake_kahuna.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    yield fake_kahuna
    fake_kahuna.stop()


ids: dict[str, str] = {}


def stub(of: str, **fields: Any) -> Any:
    return made_up().stub(f"made_up.v1.{of}")(**fields)


def request_of(fake_kahuna: FakeKahuna, method: str) -> Any:
    """The last request of a method as JSON, with ids replaced by `id of NAME`."""
    request = next(request for name, request, _ in reversed(fake_kahuna.calls) if name == method)
    document = MessageToDict(request, preserving_proto_field_name=True)
    document.pop("request_id", None)
    return with_names(document)


def with_names(value: Any) -> Any:
    """JSON with ids replaced by `id of NAME`."""
    if isinstance(value, dict):
        return {key: with_names(part) for key, part in value.items()}
    if isinstance(value, list):
        return [with_names(part) for part in value]
    return next((f"id of {name}" for name, id_ in ids.items() if id_ == value), value)


CREATE = ("--insecure", "balancer", "create", "--farm", "north", "--name", "www", "--address", "10.0.0.1")
OPTIONS: list[tuple[list[str], dict[str, Any]]] = [
    # options, fields of the request
    (["--member", "kaktus=a"], {"members": [{"kaktus": "id of a"}]}),
    (
        ["--member", "kaktus=a,weight=2,address=10.0.0.2", "--members", "weight=3,kaktus=b"],
        {"members": [{"kaktus": "id of a", "weight": 2, "address": "10.0.0.2"}, {"kaktus": "id of b", "weight": 3}]},
    ),
    (["--member", '{"kaktus": "a", "weight": 5}'], {"members": [{"kaktus": "id of a", "weight": 5}]}),
    (["--label", "tier=a,b=c", "--label", "x="], {"labels": {"tier": "a,b=c", "x": ""}}),
    (
        ["--limit", 'web={"rate": "1M", "kaktus": "b"}', "--health", '{"protocol": "http"}'],
        {
            "limits": {"web": {"rate": "1048576", "kaktus": "id of b"}},
            "health": {"protocol": "PROTOCOL_HTTP"},
        },
    ),
    (["--named-port", "www=80"], {"named_ports": {"www": 80}}),
    (["--limit", "web=rate=1M,kaktus=b"], {"limits": {"web": {"rate": "1048576", "kaktus": "id of b"}}}),
    (
        ["--health", "path=/a,b=c,protocol=HTTP,host_name=x,zone=eu"],
        {"health": {"path": "/a,b=c", "protocol": "PROTOCOL_HTTP", "host_name": "x", "zone": "id of eu"}},
    ),
    (["--health", "host-name=,path=/"], {"health": {"path": "/"}}),
    (["--ports", "80", "--ports", "8000-8080"], {"ports": ["80", "8000-8080"]}),
]


@pytest.mark.parametrize(("arguments", "fields"), OPTIONS, ids=[" ".join(arguments) for arguments, _ in OPTIONS])
def test_parts_are_given_as_options_without_json_and_by_names(
    fake_kahuna: FakeKahuna, run_command: Kowactl, arguments: list[str], fields: dict[str, Any]
) -> None:
    done = run_command(*CREATE, *arguments)
    assert (done.err, done.code) == ("", 0)
    created = request_of(fake_kahuna, "CreateBalancer")["balancer"]
    assert created.pop("meta")
    assert created == {"farm": "id of north", "name": "www", "address": "10.0.0.1"} | fields


INVALID_OPTIONS: list[tuple[list[str], str]] = [
    # options, message
    (["--member", "kaktus"], "'kaktus' is not NAME=VALUE; a name is one of kaktus, address, weight, mac"),
    (["--member", "colour=red"], "'colour=red' is not NAME=VALUE; a name is one of kaktus"),
    (["--member", "kaktus=a,kaktus=b"], "kaktus is given twice"),
    (["--member", '{"kaktus": "a", "kaktus": "b"}'], "kaktus is given twice"),
    (["--member", "kaktus=a,weight=x"], "'x' is not a valid integer range"),
    (["--member", "kaktus=a,weight=101"], "101 is not in the range 1<=x<=100"),
    (["--member", "kaktus=a,healthy=true"], "a name is one of kaktus, address, weight, mac"),
    (["--member", "{"], "not JSON"),
    (["--member", "kaktus=c"], "'c' is ambiguous; give an id"),
    (["--label", "a=1", "--label", "a=2"], "'--labels': a is given twice"),
    (["--label", "a"], "'a' is not NAME=VALUE"),
    (["--limit", "web=rate=1X"], "'1X' is no size"),
    (["--health", "protocol=udp"], "'udp' is not one of 'tcp', 'http'"),
    (["--network", "::/0"], "--address and --network contradict each other; give one of them"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), INVALID_OPTIONS, ids=[" ".join(arguments) for arguments, _ in INVALID_OPTIONS]
)
def test_invalid_options_are_refused_before_the_request_is_sent(
    fake_kahuna: FakeKahuna, run_command: Kowactl, arguments: list[str], message: str
) -> None:
    done = run_command(*CREATE, *arguments)
    assert done.code in (2, 3)
    assert message in done.err
    assert [name for name, _, _ in fake_kahuna.calls].count("CreateBalancer") == 1  # web


def test_a_missing_oneof_is_refused_with_its_options(run_command: Kowactl) -> None:
    done = run_command("--insecure", "balancer", "create", "--name", "www")
    assert (done.code, "missing --farm, --address or --network; see" in done.err) == (2, True)


UPDATES: list[tuple[list[str], list[str], dict[str, Any]]] = [
    # options, mask, fields of the request
    (["--health", "path=/b"], ["health.path"], {"health": {"path": "/b"}}),
    (["--health", "host-name="], ["health.host_name"], {"health": {}}),
    (["--health", "{}"], ["health"], {"health": {}}),
    (["--clear", "health"], ["health"], {}),
    (["--member", "kaktus=b"], ["members"], {"members": [{"kaktus": "id of b"}]}),
    (["--label", "a=b", "--name", "new"], ["name", "labels"], {"name": "new", "labels": {"a": "b"}}),
]


@pytest.mark.parametrize(
    ("arguments", "mask", "fields"), UPDATES, ids=[" ".join(arguments) for arguments, _, _ in UPDATES]
)
def test_an_update_of_a_single_part_masks_the_given_fields_only(
    fake_kahuna: FakeKahuna, run_command: Kowactl, arguments: list[str], mask: list[str], fields: dict[str, Any]
) -> None:
    done = run_command("--insecure", "balancer", "update", "web", "--no-wait", *arguments)
    assert (done.err, done.code) == ("", 0)
    request = request_of(fake_kahuna, "UpdateBalancer")
    assert request["update_mask"] == ",".join(mask).replace("host_name", "hostName")
    assert request["balancer"] == {"meta": {"id": "id of web"}} | fields


def test_parts_in_a_file_are_written_like_options(fake_kahuna: FakeKahuna, run_command: Kowactl, tmp_path: Any) -> None:
    file = tmp_path / "www.yaml"
    file.write_text(
        "members: [{kaktus: a}, {kaktus: b, weight: 2}]\n"
        "limits: {web: {rate: 1M, kaktus: a}}\n"
        "health: {path: /, protocol: http, zone: eu}\n"
    )
    done = run_command(*CREATE, "--from-file", str(file))
    assert (done.err, done.code) == ("", 0)
    created = request_of(fake_kahuna, "CreateBalancer")["balancer"]
    assert created["members"] == [{"kaktus": "id of a"}, {"kaktus": "id of b", "weight": 2}]
    assert created["limits"] == {"web": {"rate": "1048576", "kaktus": "id of a"}}
    assert created["health"] == {"path": "/", "protocol": "PROTOCOL_HTTP", "zone": "id of eu"}
    file.write_text("limits: {web: {rate: 1X}}\n")
    assert "limits['web'].rate: '1X' is no size" in run_command(*CREATE, "--from-file", str(file)).err
    file.write_text("members: 5\n")
    assert run_command(*CREATE, "--from-file", str(file)).code == 2


def test_custom_verbs_resolve_names_and_may_have_no_target(fake_kahuna: FakeKahuna, run_command: Kowactl) -> None:
    assert run_command("--insecure", "balancer", "drain", "web", "--kaktus", "a").code == 0
    assert request_of(fake_kahuna, "DrainBalancer") == {"id": "id of web", "kaktus": "id of a"}
    done = run_command("--insecure", "balancer", "rebalance", "--farm", "north", "--without", "kaktus=b", "-o", "json")
    assert (done.err, done.code, done.out) == ("", 0, '{\n  "moved": 0\n}\n')
    assert request_of(fake_kahuna, "RebalanceBalancers") == {"farm": "id of north", "without": [{"kaktus": "id of b"}]}
    done = run_command("--insecure", "balancer", "rebalance")
    assert (done.code, "missing --farm; see: kowactl balancer rebalance --help" in done.err) == (2, True)


def test_the_sdk_has_verbs_without_a_target(fake_kahuna: FakeKahuna) -> None:
    with Client(fake_kahuna.endpoint, key=KEY, insecure=True) as client:
        assert client.balancers.rebalance(farm="x").moved == 0
        client.balancers.drain("y", kaktus="z")
    assert request_of(fake_kahuna, "RebalanceBalancers") == {"farm": "x"}
    assert request_of(fake_kahuna, "DrainBalancer") == {"id": "y", "kaktus": "z"}


def test_output_shows_parts_as_they_are_typed(fake_kahuna: FakeKahuna, run_command: Kowactl) -> None:
    done = run_command(
        *CREATE, "--member", "kaktus=a,weight=2", "--member", "kaktus=b", "--limit", "x=rate=1M", "--label", "a=b"
    )
    facts = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert facts["members"] == "kaktus=a, weight=2; kaktus=b"
    assert facts["limits"] == "x=rate=1M"
    assert facts["labels"] == "a=b"


@pytest.mark.parametrize("verb", ["create", "update", "drain", "rebalance"])
def test_help_explains_parts_with_a_valid_example(run_command: Kowactl, verb: str) -> None:
    import shlex

    help_text = run_command("balancer", verb, "--help").out
    command = KindGroup(made_up().kinds["Balancer"]).get_command(click.Context(cli), verb)
    assert command
    arguments = shlex.split(help_text.partition("Example:")[2].replace("\\\n", " "))
    command.make_context(verb, arguments[3:])
    if verb == "create":
        assert "--member kaktus=my-kaktus" in help_text
        assert "kaktus=KAKTUS (required): The host. By name or id." in " ".join(help_text.split())
        assert "protocol=tcp|http: The protocol of the check." in " ".join(help_text.split())
        assert "--standby" not in help_text
