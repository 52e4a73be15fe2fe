"""Messages within messages at a shell: without JSON, with names for ids; and verbs of a kind as a whole."""

from collections.abc import Iterator
from typing import Any

import click
import pytest
from google.protobuf.json_format import MessageToDict

from kowa import contract
from kowa.client import Client
from kowa.v2.kaktus_pb2 import Kaktus
from kowa.v2.zone_pb2 import Zone
from kowactl.kinds import KindGroup
from kowactl.main import cli
from tests.cli.conftest import Kowactl
from tests.fake_kahuna import KEY, Fake
from tests.made_up import made_up


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up kinds are part of the contract."""
    monkeypatch.setattr(contract, "load", made_up)


@pytest.fixture
def farm(known: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """A farm called north, hosts a and b, and the balancer web."""
    fake = Fake()
    fake.start()
    with Client(fake.endpoint, key=KEY, insecure=True) as client:
        made: list[Any] = [Kaktus(name="a"), Kaktus(name="b"), Zone(name="eu")]
        for resource in (*made, stub("Farm", name="north"), stub("Balancer", name="web")):
            ids[resource.name] = client.of(type(resource)).create(resource).meta.id
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    yield fake
    fake.stop()


ids: dict[str, str] = {}


def stub(of: str, **fields: Any) -> Any:
    return made_up().stub(f"made_up.v1.{of}")(**fields)


def sent(fake: Fake, method: str) -> Any:
    """The last request of a method, as JSON, with names for ids."""
    request = next(request for name, request, _ in reversed(fake.calls) if name == method)
    document = MessageToDict(request, preserving_proto_field_name=True)
    document.pop("request_id", None)
    return named(document)


def named(value: Any) -> Any:
    """The same with names for ids."""
    if isinstance(value, dict):
        return {key: named(one) for key, one in value.items()}
    if isinstance(value, list):
        return [named(one) for one in value]
    return next((f"id of {name}" for name, id_ in ids.items() if id_ == value), value)


CREATE = ("--insecure", "balancer", "create", "--farm", "north", "--name", "www", "--address", "10.0.0.1")
GIVEN: list[tuple[list[str], dict[str, Any]]] = [
    # what is typed, what is sent
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


@pytest.mark.parametrize(("words", "fields"), GIVEN, ids=[" ".join(words) for words, _ in GIVEN])
def test_parts_are_typed_without_json_and_name_by_name(
    farm: Fake, bare: Kowactl, words: list[str], fields: dict[str, Any]
) -> None:
    done = bare(*CREATE, *words)
    assert (done.err, done.code) == ("", 0)
    made = sent(farm, "CreateBalancer")["balancer"]
    assert made.pop("meta")
    assert made == {"farm": "id of north", "name": "www", "address": "10.0.0.1"} | fields


WRONG: list[tuple[list[str], str]] = [
    # what is typed, what is said
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


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_what_is_typed_wrongly_is_said_before_it_is_sent(
    farm: Fake, bare: Kowactl, words: list[str], message: str
) -> None:
    done = bare(*CREATE, *words)
    assert done.code in (2, 3)
    assert message in done.err
    assert [name for name, _, _ in farm.calls].count("CreateBalancer") == 1  # web


def test_one_of_several_must_be_given(bare: Kowactl) -> None:
    done = bare("--insecure", "balancer", "create", "--name", "www")
    assert (done.code, "missing --farm, --address or --network; see" in done.err) == (2, True)


CHANGED: list[tuple[list[str], list[str], dict[str, Any]]] = [
    # what is typed, the mask, what is sent
    (["--health", "path=/b"], ["health.path"], {"health": {"path": "/b"}}),
    (["--health", "host-name="], ["health.host_name"], {"health": {}}),
    (["--health", "{}"], ["health"], {"health": {}}),
    (["--clear", "health"], ["health"], {}),
    (["--member", "kaktus=b"], ["members"], {"members": [{"kaktus": "id of b"}]}),
    (["--label", "a=b", "--name", "new"], ["name", "labels"], {"name": "new", "labels": {"a": "b"}}),
]


@pytest.mark.parametrize(("words", "mask", "fields"), CHANGED, ids=[" ".join(words) for words, _, _ in CHANGED])
def test_of_a_part_that_is_one_only_what_is_given_changes(
    farm: Fake, bare: Kowactl, words: list[str], mask: list[str], fields: dict[str, Any]
) -> None:
    done = bare("--insecure", "balancer", "update", "web", "--no-wait", *words)
    assert (done.err, done.code) == ("", 0)
    request = sent(farm, "UpdateBalancer")
    assert request["update_mask"] == ",".join(mask).replace("host_name", "hostName")
    assert request["balancer"] == {"meta": {"id": "id of web"}} | fields


def test_a_file_says_parts_as_options_do(farm: Fake, bare: Kowactl, tmp_path: Any) -> None:
    file = tmp_path / "www.yaml"
    file.write_text(
        "members: [{kaktus: a}, {kaktus: b, weight: 2}]\n"
        "limits: {web: {rate: 1M, kaktus: a}}\n"
        "health: {path: /, protocol: http, zone: eu}\n"
    )
    done = bare(*CREATE, "--from-file", str(file))
    assert (done.err, done.code) == ("", 0)
    made = sent(farm, "CreateBalancer")["balancer"]
    assert made["members"] == [{"kaktus": "id of a"}, {"kaktus": "id of b", "weight": 2}]
    assert made["limits"] == {"web": {"rate": "1048576", "kaktus": "id of a"}}
    assert made["health"] == {"path": "/", "protocol": "PROTOCOL_HTTP", "zone": "id of eu"}
    file.write_text("limits: {web: {rate: 1X}}\n")
    assert "limits['web'].rate: '1X' is no size" in bare(*CREATE, "--from-file", str(file)).err
    file.write_text("members: 5\n")
    assert bare(*CREATE, "--from-file", str(file)).code == 2


def test_verbs_name_by_name_and_may_have_no_target(farm: Fake, bare: Kowactl) -> None:
    assert bare("--insecure", "balancer", "drain", "web", "--kaktus", "a").code == 0
    assert sent(farm, "DrainBalancer") == {"id": "id of web", "kaktus": "id of a"}
    done = bare("--insecure", "balancer", "rebalance", "--farm", "north", "--without", "kaktus=b", "-o", "json")
    assert (done.err, done.code, done.out) == ("", 0, '{\n  "moved": 0\n}\n')
    assert sent(farm, "RebalanceBalancers") == {"farm": "id of north", "without": [{"kaktus": "id of b"}]}
    done = bare("--insecure", "balancer", "rebalance")
    assert (done.code, "missing --farm; see: kowactl balancer rebalance --help" in done.err) == (2, True)


def test_the_sdk_has_verbs_without_a_target(farm: Fake) -> None:
    with Client(farm.endpoint, key=KEY, insecure=True) as client:
        assert client.balancers.rebalance(farm="x").moved == 0
        client.balancers.drain("y", kaktus="z")
    assert sent(farm, "RebalanceBalancers") == {"farm": "x"}
    assert sent(farm, "DrainBalancer") == {"id": "y", "kaktus": "z"}


def test_a_table_shows_parts_as_they_are_typed(farm: Fake, bare: Kowactl) -> None:
    done = bare(
        *CREATE, "--member", "kaktus=a,weight=2", "--member", "kaktus=b", "--limit", "x=rate=1M", "--label", "a=b"
    )
    facts = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert facts["members"] == "kaktus=a, weight=2; kaktus=b"
    assert facts["limits"] == "x=rate=1M"
    assert facts["labels"] == "a=b"


@pytest.mark.parametrize("verb", ["create", "update", "drain", "rebalance"])
def test_help_explains_parts_with_an_example_that_can_be_typed(bare: Kowactl, verb: str) -> None:
    import shlex

    shown = bare("balancer", verb, "--help").out
    command = KindGroup(made_up().kinds["Balancer"]).get_command(click.Context(cli), verb)
    assert command
    words = shlex.split(shown.partition("Example:")[2].replace("\\\n", " "))
    command.make_context(verb, words[3:])
    if verb == "create":
        assert "--member kaktus=my-kaktus" in shown
        assert "kaktus=KAKTUS (required): The host. By name or id." in " ".join(shown.split())
        assert "protocol=tcp|http: The protocol of the check." in " ".join(shown.split())
        assert "--standby" not in shown
