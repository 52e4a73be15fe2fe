"""Nested parts in every client: invalid input is refused with its field path, valid input is stored unchanged."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from kahuna import maintenance
from kahuna.domain.errors import REASONS
from kahuna.domain.validation import normalize
from kahuna.settings import Settings
from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import kaktus_pb2, region_pb2, zone_pb2
from kowactl.main import EXIT_CODES
from tests.clients import Kowactl, Rest, rest
from tests.made_up import PROGRAM, bad_input, made_up
from tests.waiting import until

NOBODY = "00000000-0000-4000-8000-000000000000"


@dataclass
class Site:
    """A Kahuna that serves the made-up kinds, with a farm, a zone and the hosts host-1 to host-5."""

    client: Client
    caller: Any  # the client under test: gRPC, REST or kowactl
    ids: dict[str, str]

    @property
    def revision(self) -> int:
        """The store's current revision."""
        method = contract.load().kinds["Region"].service.methods["list"]
        request = contract.load().stub(method.request.name)()
        return int(self.client.call(method, request).resource.revision)

    def balancer(self, fields: dict[str, Any]) -> Any:
        """A balancer from JSON, with the names in it replaced by ids."""
        named = bad_input.balancer(fields)
        return ParseDict(self._with_ids(named), made_up().stub("made_up.v1.Balancer")())

    def _with_ids(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._with_ids(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._with_ids(part) for part in value]
        return self.ids.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module", autouse=True)
def contract_with_made_up_kinds() -> Iterator[None]:
    """Adds the made-up kinds to the contract."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "load", made_up)
        yield


@pytest.fixture(scope="module")
def kahuna(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The endpoint and the admin key of a Kahuna that serves the made-up kinds."""
    folder = tmp_path_factory.mktemp("kahuna")
    maintenance.generate_admin_key(Settings(state=folder), folder / "admin.key")
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as fleet:
        ports = {"api": api.getsockname()[1], "fleet": fleet.getsockname()[1]}
    lines = [f'{name} = "127.0.0.1:{port}"\n' for name, port in ports.items()]
    (folder / "kahuna.toml").write_text(f'state = "{folder}"\nmetrics = ""\nlog_json = false\n{"".join(lines)}')
    serving = subprocess.Popen([*PROGRAM, "kahuna", "--config", str(folder / "kahuna.toml"), "serve"])
    try:
        yield f"127.0.0.1:{ports['api']}", (folder / "admin.key").read_text().strip()
    finally:
        serving.terminate()
        assert serving.wait(20) == 0


@pytest.fixture(
    scope="module",
    params=[
        "grpc",
        pytest.param("rest", marks=pytest.mark.gateway),
        pytest.param("kowactl", marks=pytest.mark.slow),
    ],
)
def site(
    kahuna: tuple[str, str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site for one client, with the resources that `bad_input` names."""
    endpoint, key = kahuna
    with Client(endpoint, key=key, insecure=True) as client, contextlib.ExitStack() as stack:
        until(lambda: _is_serving(client), what="Kahuna")
        caller: Any = client
        if request.param == "rest":
            folder = tmp_path_factory.mktemp("gateway")
            caller = stack.enter_context(rest(endpoint, key, folder, (*PROGRAM, "gateway")))
        elif request.param == "kowactl":
            caller = Kowactl(endpoint, key, (*PROGRAM, "kowactl"))
        yield Site(client, caller, _create_resources(client, request.param))


@pytest.fixture
def transport(site: Site) -> str:
    """The name of the client under test."""
    return {Client: "grpc", Rest: "rest", Kowactl: "kowactl"}[type(site.caller)]


def _is_serving(client: Client) -> bool:
    try:
        return list(client.regions.list()) is not None
    except errors.Unavailable:
        return False


def _create_resources(client: Client, transport: str) -> dict[str, str]:
    """Creates the resources for a client; returns their ids by their names in the tables."""
    region = client.of(region_pb2.Region).create(region_pb2.Region(name=transport))
    zone = client.of(zone_pb2.Zone).create(zone_pb2.Zone(region=region.meta.id, name="eu-a"))
    farm = client.farms.create(made_up().stub("made_up.v1.Farm")(name=transport))
    hosts = [kaktus_pb2.Kaktus(zone=zone.meta.id, name=f"host-{number}") for number in range(1, 6)]
    created = {host.name: client.of(kaktus_pb2.Kaktus).create(host) for host in hosts}
    return {"north": farm.meta.id, "eu-a": zone.meta.id, "spare": NOBODY} | {
        name: host.meta.id for name, host in created.items()
    }


def problem_of_refusal(
    site: Site, transport: str, case: str, call: Callable[[], object], reason: str, message: str
) -> str:
    """Makes a call that must be refused; returns what is wrong with the refusal, or an empty text."""
    before = site.revision
    try:
        call()
    except errors.KowaError as error:
        exit_code = EXIT_CODES[errors.CLASSES[REASONS[reason]]]
        if transport == "kowactl" and case in REFUSED_BY_KOWACTL:
            reason, (exit_code, message) = "", REFUSED_BY_KOWACTL[case]
        as_expected = (error.reason, message in error.message) == (reason, True)
        if not as_expected or (transport == "kowactl" and error.code != str(exit_code)):
            return f"{case}: {error.code}: {error.reason}: {error.message}"
    else:
        return f"{case}: not refused"
    return f"{case}: changed something" if site.revision != before else ""


# Input that kowactl refuses itself: its exit code and message.
REFUSED_BY_KOWACTL = {
    "nowhere": (2, "missing --address or --network"),
    "a part of a verb": (2, "101 is not in the range 1<=x<=100"),
}


def test_invalid_parts_are_refused_with_their_field_path_and_change_nothing(site: Site, transport: str) -> None:
    problems = [
        problem
        for case, fields, reason, message in bad_input.REFUSED
        if (problem := problem_of_refusal(site, transport, case, create(site, fields), reason, message))
    ]
    assert not problems, "\n".join(problems)


def create(site: Site, fields: dict[str, Any]) -> Callable[[], object]:
    """A call that creates a balancer."""
    return lambda: site.caller.balancers.begin_create(site.balancer(fields))


def test_valid_parts_are_stored_unchanged(site: Site) -> None:
    for fields in bad_input.ACCEPTED:
        site.caller.balancers.begin_create(site.balancer(fields))
        (created,) = site.client.balancers.list(filter=f'farm = "{site.ids["north"]}"')
        wanted = site.balancer(fields)
        normalize(wanted)
        created.ClearField("meta")
        created.ClearField("status")
        assert MessageToDict(created) == MessageToDict(wanted)
        delete_balancers(site)


def delete_balancers(site: Site) -> None:
    """Deletes all balancers of the farm."""
    for each in site.client.balancers.list(filter=f'farm = "{site.ids["north"]}"'):
        site.client.balancers.begin_delete(each.meta.id)
    assert not list(site.client.balancers.list(filter=f'farm = "{site.ids["north"]}"'))


@pytest.fixture
def web(site: Site) -> Iterator[Any]:
    """A balancer with a health check and two members; the second has a hardware address."""
    fields = {
        "health": {"path": "/", "zone": "eu-a"},
        "members": [{"kaktus": "host-1"}, {"kaktus": "host-2", "mac": "52:54:00:00:00:02"}],
        "labels": {"tier": "front"},
    }
    yield site.client.balancers.begin_create(site.balancer(fields)).resource
    delete_balancers(site)


OTHER = "52:54:00:00:00:03"
CHANGES: list[tuple[str, dict[str, Any], list[str], str, str]] = [
    # case, changed fields, mask, reason, message
    ("another zone in a part", {"health": {"path": "/", "zone": NOBODY}}, ["health"], "INVALID_ARGUMENT",
     "health.zone: can't be changed; create another balancer"),
    ("another MAC of a member", {"members": [{"kaktus": "host-2", "mac": OTHER}]}, ["members"], "INVALID_ARGUMENT",
     "members[0].mac: can't be changed; create another balancer"),
    ("a member that is nowhere", {"members": [{"kaktus": "host-1"}, {"kaktus": NOBODY}]}, ["members"],
     "INVALID_ARGUMENT", f"members[1].kaktus: no kaktus has the id '{NOBODY}'; list them to find it"),
    ("a limit for nobody", {"limits": {"a": {"rate": "1024", "kaktus": NOBODY}}}, ["limits"], "INVALID_ARGUMENT",
     "limits['a'].kaktus: no kaktus has the id"),
    ("a part of a list", {"members": []}, ["members.kaktus"], "INVALID_ARGUMENT", "name the whole field, members"),
    ("a part of a map", {"labels": {}}, ["labels.tier"], "INVALID_ARGUMENT", "name the whole field, labels"),
    ("no field of a part", {"health": {}}, ["health.colour"], "INVALID_ARGUMENT", "have no field 'health.colour'"),
    ("the server's in a part", {"health": {"answered": 7}}, ["health.answered"], "INVALID_ARGUMENT",
     "health.answered is the server's to fill"),
    ("a part emptied that is needed", {"health": {}}, ["health.path"], "INVALID_ARGUMENT", "health.path: is required"),
    ("neither of two", {"address": None}, ["address"], "INVALID_ARGUMENT", "exposure: one of address, network"),
]  # fmt: skip


def test_invalid_changes_of_parts_are_refused_and_change_nothing(site: Site, transport: str, web: Any) -> None:
    problems = []
    for case, fields, mask, reason, message in CHANGES:
        sent = site.balancer(fields)
        sent.meta.id, sent.meta.etag = web.meta.id, web.meta.etag
        if transport == "kowactl" and (any("." in path for path in mask) or case == "neither of two"):
            continue  # kowactl makes the mask from its options
        call = partial(site.caller.balancers.begin_update, sent, mask)
        problems.append(problem_of_refusal(site, transport, case, call, reason, message))
    assert not any(problems), "\n".join(filter(None, problems))


def test_a_field_of_a_part_is_changed_and_its_other_fields_stay(site: Site, transport: str, web: Any) -> None:
    if transport == "kowactl":
        site.caller.run("balancer", "update", web.meta.id, "--no-wait", "--health", "path=/new,host-name=a.example")
    else:
        sent: Any = made_up().stub("made_up.v1.Balancer")(health={"path": "/new", "host_name": "a.example"})
        sent.meta.id = web.meta.id
        site.caller.balancers.begin_update(sent, ["health.path", "health.host_name"])
    changed = site.client.balancers.get(web.meta.id)
    assert MessageToDict(changed.health, preserving_proto_field_name=True) == {
        "path": "/new",
        "host_name": "a.example",
        "protocol": "PROTOCOL_TCP",
        "zone": site.ids["eu-a"],
    }
    assert changed.members == web.members
    assert changed.meta.generation == 2


def test_a_duplicate_of_a_unique_value_is_refused_with_the_kinds_message(site: Site, transport: str, web: Any) -> None:
    for name, address, reason, message in (
        ("web", "10.0.0.9", "NAME_TAKEN", "another balancer of its farm is called 'web'; choose another name"),
        ("www", web.address, "ADDRESS_TAKEN", f"address: {web.address} belongs to another balancer; choose another"),
    ):
        call = create(site, {"name": name, "address": address})
        assert not problem_of_refusal(site, transport, reason, call, reason, message)
    for number in range(2):  # several balancers may be without an address
        create(site, {"name": f"net-{number}", "address": None, "network": "::/0"})()


def test_deleting_a_farm_with_balancers_is_refused(site: Site, transport: str, web: Any) -> None:
    call = partial(site.caller.farms.begin_delete, site.ids["north"])
    assert not problem_of_refusal(
        site, transport, "a farm", call, "HAS_CHILDREN", "has 1 balancer: web; delete them first"
    )


def test_deleting_a_host_that_a_part_references_is_refused(site: Site, transport: str, web: Any) -> None:
    call = partial(site.caller.kaktuses.begin_delete, site.ids["host-2"])
    assert not problem_of_refusal(
        site, transport, "a host", call, "HAS_CHILDREN", "has 1 balancer: web; take it from web or delete"
    )


def test_verbs_with_and_without_a_target(site: Site, transport: str, web: Any) -> None:
    first, second = (member.kaktus for member in web.members)
    begin = site.caller.balancers.begin
    begin("drain", web.meta.id, kaktus=first)
    assert [member.kaktus for member in site.client.balancers.get(web.meta.id).members] == [second]
    again = partial(begin, "drain", web.meta.id, kaktus=first)
    assert not problem_of_refusal(
        site, transport, "drained", again, "INVALID_ARGUMENT", "is not a member of balancer web"
    )
    invalid = partial(begin, "rebalance", farm=site.ids["north"], without=[{"kaktus": second, "weight": 101}])
    message = "without[0].weight: is 101, 100 at most"
    assert not problem_of_refusal(site, transport, "a part of a verb", invalid, "INVALID_ARGUMENT", message)
    begin("rebalance", farm=site.ids["north"], without=[{"kaktus": second}])
    assert not site.client.balancers.get(web.meta.id).members


@pytest.mark.slow
@pytest.mark.parametrize("site", ["kowactl"], indirect=True)
def test_kowactl_resolves_names_in_parts(site: Site) -> None:
    arguments = ["--farm", "kowactl", "--name", "web", "--address", "10.0.0.1", "--health", "path=/,zone=kowactl/eu-a"]
    created = json.loads(
        site.caller.run(
            *("balancer", "create", "--no-wait", *arguments, "-o", "json"),
            *("--member", "kaktus=kowactl/eu-a/host-1", "--member", "kaktus=kowactl/eu-a/host-2,weight=3"),
        )
    )
    assert [(member["kaktus"], member["weight"]) for member in created["members"]] == [
        (site.ids["host-1"], 1),
        (site.ids["host-2"], 3),
    ]
    assert created["health"]["zone"] == site.ids["eu-a"]
    output = site.caller.run("balancer", "get", "web")
    assert "kaktus=host-1, weight=1; kaktus=host-2, weight=3" in output
    delete_balancers(site)
