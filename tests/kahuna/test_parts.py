"""Nested parts, in every client: bad input is refused with its place and changes nothing, good input arrives whole."""

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
    """A Kahuna that serves the made-up kinds: the farm north, hosts host-1 to host-5, zone eu-a, the balancer spare."""

    client: Client
    speaker: Any  # what the test's calls are made with
    ids: dict[str, str]

    @property
    def revision(self) -> int:
        """How far the store has come."""
        method = contract.load().kinds["Region"].service.methods["list"]
        request = contract.load().stub(method.request.name)()
        return int(self.client.call(method, request).resource.revision)

    def balancer(self, fields: dict[str, Any]) -> Any:
        """A balancer from JSON, with ids for names."""
        known = bad_input.balancer(fields)
        return ParseDict(self._with_ids(known), made_up().stub("made_up.v1.Balancer")())

    def _with_ids(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._with_ids(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._with_ids(one) for one in value]
        return self.ids.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module", autouse=True)
def contract_with_made_up_kinds() -> Iterator[None]:
    """The made-up kinds are part of the contract."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "load", made_up)
        yield


@pytest.fixture(scope="module")
def kahuna(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Where one listens that serves the made-up kinds, and its key."""
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
    """One, with what bad input names."""
    endpoint, key = kahuna
    with Client(endpoint, key=key, insecure=True) as client, contextlib.ExitStack() as stack:
        until(lambda: _answers(client), what="Kahuna")
        speaker: Any = client
        if request.param == "rest":
            folder = tmp_path_factory.mktemp("gateway")
            speaker = stack.enter_context(rest(endpoint, key, folder, (*PROGRAM, "gateway")))
        elif request.param == "kowactl":
            speaker = Kowactl(endpoint, key, (*PROGRAM, "kowactl"))
        yield Site(client, speaker, _laid_out(client, request.param))


@pytest.fixture
def transport(site: Site) -> str:
    """What the site's calls are made with."""
    return {Client: "grpc", Rest: "rest", Kowactl: "kowactl"}[type(site.speaker)]


def _answers(client: Client) -> bool:
    try:
        return list(client.regions.list()) is not None
    except errors.Unavailable:
        return False


def _laid_out(client: Client, transport: str) -> dict[str, str]:
    """What stands at a site of its own for each client, by the name that the tables have for it."""
    region = client.of(region_pb2.Region).create(region_pb2.Region(name=transport))
    zone = client.of(zone_pb2.Zone).create(zone_pb2.Zone(region=region.meta.id, name="eu-a"))
    farm = client.farms.create(made_up().stub("made_up.v1.Farm")(name=transport))
    hosts = [kaktus_pb2.Kaktus(zone=zone.meta.id, name=f"host-{number}") for number in range(1, 6)]
    made = {host.name: client.of(kaktus_pb2.Kaktus).create(host) for host in hosts}
    return {"north": farm.meta.id, "eu-a": zone.meta.id, "spare": NOBODY} | {
        name: host.meta.id for name, host in made.items()
    }


def refused(site: Site, transport: str, what: str, ask: Callable[[], object], reason: str, words: str) -> str:
    """What is wrong with a refusal, or nothing."""
    before = site.revision
    try:
        ask()
    except errors.KowaError as error:
        exit_code = EXIT_CODES[errors.CLASSES[REASONS[reason]]]
        if transport == "kowactl" and what in REFUSED_BY_KOWACTL:
            reason, (exit_code, words) = "", REFUSED_BY_KOWACTL[what]
        as_expected = (error.reason, words in error.message) == (reason, True)
        if not as_expected or (transport == "kowactl" and error.code != str(exit_code)):
            return f"{what}: {error.code}: {error.reason}: {error.message}"
    else:
        return f"{what}: not refused"
    return f"{what}: changed something" if site.revision != before else ""


# What kowactl refuses by itself: its exit code, and its words.
REFUSED_BY_KOWACTL = {
    "nowhere": (2, "missing --address or --network"),
    "a part of a verb": (2, "101 is not in the range 1<=x<=100"),
}


def test_bad_input_in_parts_is_refused_with_its_place_and_changes_nothing(site: Site, transport: str) -> None:
    wrong = [
        fault
        for what, fields, reason, words in bad_input.REFUSED
        if (fault := refused(site, transport, what, create(site, fields), reason, words))
    ]
    assert not wrong, "\n".join(wrong)


def create(site: Site, fields: dict[str, Any]) -> Callable[[], object]:
    """Asks for a balancer."""
    return lambda: site.speaker.balancers.begin_create(site.balancer(fields))


def test_good_input_in_parts_arrives_whole(site: Site) -> None:
    for fields in bad_input.TAKEN:
        site.speaker.balancers.begin_create(site.balancer(fields))
        (made,) = site.client.balancers.list(filter=f'farm = "{site.ids["north"]}"')
        wanted = site.balancer(fields)
        normalize(wanted)
        made.ClearField("meta")
        made.ClearField("status")
        assert MessageToDict(made) == MessageToDict(wanted)
        gone(site)


def gone(site: Site) -> None:
    """No balancer is left in the farm."""
    for each in site.client.balancers.list(filter=f'farm = "{site.ids["north"]}"'):
        site.client.balancers.begin_delete(each.meta.id)
    assert not list(site.client.balancers.list(filter=f'farm = "{site.ids["north"]}"'))


@pytest.fixture
def web(site: Site) -> Iterator[Any]:
    """A balancer with a health check and two members, the other of which has a hardware address."""
    fields = {
        "health": {"path": "/", "zone": "eu-a"},
        "members": [{"kaktus": "host-1"}, {"kaktus": "host-2", "mac": "52:54:00:00:00:02"}],
        "labels": {"tier": "front"},
    }
    yield site.client.balancers.begin_create(site.balancer(fields)).resource
    gone(site)


OTHER = "52:54:00:00:00:03"
CHANGES: list[tuple[str, dict[str, Any], list[str], str, str]] = [
    # what, what is sent, mask, reason, words
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


def test_bad_changes_of_parts_are_refused_and_change_nothing(site: Site, transport: str, web: Any) -> None:
    wrong = []
    for what, fields, mask, reason, words in CHANGES:
        sent = site.balancer(fields)
        sent.meta.id, sent.meta.etag = web.meta.id, web.meta.etag
        if transport == "kowactl" and (any("." in path for path in mask) or what == "neither of two"):
            continue  # its masks are made from what it is given
        ask = partial(site.speaker.balancers.begin_update, sent, mask)
        wrong.append(refused(site, transport, what, ask, reason, words))
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_a_part_of_a_part_changes_and_the_rest_of_it_stays(site: Site, transport: str, web: Any) -> None:
    if transport == "kowactl":
        site.speaker.run("balancer", "update", web.meta.id, "--no-wait", "--health", "path=/new,host-name=a.example")
    else:
        sent: Any = made_up().stub("made_up.v1.Balancer")(health={"path": "/new", "host_name": "a.example"})
        sent.meta.id = web.meta.id
        site.speaker.balancers.begin_update(sent, ["health.path", "health.host_name"])
    changed = site.client.balancers.get(web.meta.id)
    assert MessageToDict(changed.health, preserving_proto_field_name=True) == {
        "path": "/new",
        "host_name": "a.example",
        "protocol": "PROTOCOL_TCP",
        "zone": site.ids["eu-a"],
    }
    assert changed.members == web.members
    assert changed.meta.generation == 2


def test_what_no_two_share_is_refused_in_the_kinds_words(site: Site, transport: str, web: Any) -> None:
    for name, address, reason, words in (
        ("web", "10.0.0.9", "NAME_TAKEN", "another balancer of its farm is called 'web'; choose another name"),
        ("www", web.address, "ADDRESS_TAKEN", f"address: {web.address} belongs to another balancer; choose another"),
    ):
        ask = create(site, {"name": name, "address": address})
        assert not refused(site, transport, reason, ask, reason, words)
    for number in range(2):  # of no address there may be many
        create(site, {"name": f"net-{number}", "address": None, "network": "::/0"})()


def test_a_farm_with_balancers_stays(site: Site, transport: str, web: Any) -> None:
    ask = partial(site.speaker.farms.begin_delete, site.ids["north"])
    assert not refused(site, transport, "a farm", ask, "HAS_CHILDREN", "has 1 balancer: web; delete them first")


def test_a_host_that_a_part_names_stays(site: Site, transport: str, web: Any) -> None:
    ask = partial(site.speaker.kaktuses.begin_delete, site.ids["host-2"])
    assert not refused(
        site, transport, "a host", ask, "HAS_CHILDREN", "has 1 balancer: web; take it from web or delete"
    )


def test_verbs_with_and_without_a_target(site: Site, transport: str, web: Any) -> None:
    first, second = (member.kaktus for member in web.members)
    begin = site.speaker.balancers.begin
    begin("drain", web.meta.id, kaktus=first)
    assert [member.kaktus for member in site.client.balancers.get(web.meta.id).members] == [second]
    again = partial(begin, "drain", web.meta.id, kaktus=first)
    assert not refused(site, transport, "drained", again, "INVALID_ARGUMENT", "is no member of balancer web")
    wrong = partial(begin, "rebalance", farm=site.ids["north"], without=[{"kaktus": second, "weight": 101}])
    words = "without[0].weight: is 101, 100 at most"
    assert not refused(site, transport, "a part of a verb", wrong, "INVALID_ARGUMENT", words)
    begin("rebalance", farm=site.ids["north"], without=[{"kaktus": second}])
    assert not site.client.balancers.get(web.meta.id).members


@pytest.mark.slow
@pytest.mark.parametrize("site", ["kowactl"], indirect=True)
def test_kowactl_names_by_name_in_parts(site: Site) -> None:
    words = ["--farm", "kowactl", "--name", "web", "--address", "10.0.0.1", "--health", "path=/,zone=kowactl/eu-a"]
    made = json.loads(
        site.speaker.run(
            *("balancer", "create", "--no-wait", *words, "-o", "json"),
            *("--member", "kaktus=kowactl/eu-a/host-1", "--member", "kaktus=kowactl/eu-a/host-2,weight=3"),
        )
    )
    assert [(member["kaktus"], member["weight"]) for member in made["members"]] == [
        (site.ids["host-1"], 1),
        (site.ids["host-2"], 3),
    ]
    assert made["health"]["zone"] == site.ids["eu-a"]
    shown = site.speaker.run("balancer", "get", "web")
    assert "kaktus=host-1, weight=1; kaktus=host-2, weight=3" in shown
    gone(site)
