"""Lists: what can't be asked, how far a page goes, and whose its token is."""

import base64
import json
from typing import Any

import pytest

from kowa import contract, errors
from kowa.v2 import instance_pb2, project_pb2, region_pb2
from tests.control_plane import GIB, ControlPlane
from tests.site import Site, make_site
from tests.ssh_keys import long_key

KINDS = contract.load().kinds
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def listed(cloud: ControlPlane, kind: str = "Region", **query: object) -> Any:
    """One page."""
    method = KINDS[kind].service.methods["list"]
    request = contract.load().stub(method.request.name)(**query)
    return cloud.client.call(method, request).resource


def encoded(token: object) -> str:
    return base64.urlsafe_b64encode(token if isinstance(token, bytes) else json.dumps(token).encode()).decode()


def bent(token: str, **changes: object) -> str:
    """A genuine token with something else in it."""
    return encoded({**json.loads(base64.urlsafe_b64decode(token)), **changes})


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "Project"},
        {"filter": "name != x"},
        {"order_by": "name desc"},
        {"order_by": "description"},
        {"order_by": ""},
    ],
    ids=str,
)
def test_a_token_serves_only_the_list_that_gave_it(cloud: ControlPlane, query: dict[str, Any]) -> None:
    for name in ("eu", "us"):
        cloud.region(name)
        cloud.client.of(project_pb2.Project).create(project_pb2.Project(name=name))
    token = listed(cloud, order_by="name", page_size=1).next_page_token
    assert [found.name for found in listed(cloud, order_by="name", page_token=token).regions] == ["us"]
    with pytest.raises(errors.Invalid, match="page_token: is not one that this list returned; start anew"):
        listed(cloud, **{"order_by": "name", **query}, page_token=token)


@pytest.fixture
def machines(cloud: ControlPlane) -> Site:
    """A site with a running machine, web, and a stopped one, db, that is larger."""
    site = make_site(cloud)
    site.connect_host()
    cloud.client.instances.create(site.wanted("web"))
    db = cloud.client.instances.create(site.wanted("db", memory=3 * GIB // 2))
    cloud.client.instances.stop(db.meta.id)
    return site


AS_TABLES_SHOW_THEM: list[tuple[str, list[str]]] = [
    ("power = running", ["web"]),
    ('power = "Stopped"', ["db"]),
    ("power != RUNNING", ["db"]),
    ("status.power = POWER_RUNNING", ["web"]),
    ("meta.state = ready AND power = stopped", ["db"]),
    ("memory >= 1G", ["db", "web"]),
    ("memory > 1GiB", ["db"]),
    ("memory = 1.5G", ["db"]),
    ("memory = 1536M AND memory < 1T", ["db"]),
    ("memory = 1073741824", ["web"]),
    ("memory > 0.0009765625K", ["db", "web"]),
]


def test_values_may_be_written_as_tables_show_them(machines: Site) -> None:
    for condition, found in AS_TABLES_SHOW_THEM:
        listed = machines.client.instances.list(filter=condition, order_by="name")
        assert [machine.name for machine in listed] == found, condition


def test_what_names_a_resource_is_asked_by_its_id(machines: Site) -> None:
    def names(kind: str, condition: str) -> list[str]:
        return [found.name for found in getattr(machines.client, kind).list(filter=condition, order_by="name")]

    project, web = machines.project.meta.id, next(machines.client.instances.list(filter="name = web"))
    assert names("instances", f"project = {project}") == ["db", "web"]
    assert names("instances", f"project = {project.upper()}") == ["db", "web"]
    assert names("instances", f"project != {web.meta.id}") == ["db", "web"]
    assert names("instances", f"volumes:{web.volumes[0]}") == ["web"]
    machines.volume("free")
    assert names("volumes", 'instance = ""') == ["free"]


@pytest.mark.parametrize(
    "keys",
    [[5], [None], [[1]], [{}], [], ["x", "y"], 5, "n", {}, None],
    ids=repr,
)
def test_a_bent_token_is_refused(cloud: ControlPlane, keys: object) -> None:
    for name in ("eu", "us"):
        cloud.region(name)
    token = listed(cloud, order_by="name", page_size=1).next_page_token
    with pytest.raises(errors.Invalid, match="page_token: is not one"):
        listed(cloud, order_by="name", page_token=bent(token, keys=keys))


@pytest.mark.parametrize(
    "token",
    ["x", "é", encoded([]), encoded(5), encoded(None), encoded(b"\xff\xfe"), encoded(b"[" * 100_000), "A" * 100_000],
    ids=lambda token: token[:8],
)
def test_what_is_no_token_is_refused(cloud: ControlPlane, token: str) -> None:
    with pytest.raises(errors.Invalid, match="page_token: is not one"):
        listed(cloud, page_token=token)


def test_a_long_key_makes_no_long_token_and_pages_are_the_list_all_the_same(cloud: ControlPlane) -> None:
    # All the same for longer than a token remembers, and different behind that.
    for name in "dbac":
        wanted = region_pb2.Region(name=name, description="😀" * 1000 + name)
        cloud.client.of(region_pb2.Region).create(wanted)
    for order in ("description", "description desc", "description, description desc, name"):
        assert len(listed(cloud, order_by=order, page_size=1).next_page_token) < 2048
        whole = [region.name for region in cloud.client.regions.list(order_by=order)]
        paged = [region.name for region in cloud.client.regions.list(order_by=order, page_size=1)]
        assert paged == whole
        assert sorted(whole) == [*"abcd"]


@pytest.mark.slow
def test_a_page_ends_where_an_answer_has_no_more_room_and_the_next_goes_on(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    site.connect_host()
    names = [f"m{number:02}" for number in range(12)]
    for name in names:
        volume = site.volume(name, size=1 << 20).resource.meta.id
        machine = instance_pb2.Instance(
            project=site.project.meta.id,
            zone=site.zone.meta.id,
            name=name,
            vcpus=1,
            memory=1 << 20,
            volumes=[volume],
            ssh_keys=[long_key(8192)] * 32,  # a mebibyte
        )
        cloud.client.of(instance_pb2.Instance).begin_create(machine)
    first = listed(cloud, "Instance", order_by="name", page_size=1000)
    assert 1 < len(first.instances) < len(names)
    assert first.ByteSize() < 4 << 20
    assert first.total_size == len(names)
    assert [found.name for found in cloud.client.instances.list(order_by="name", page_size=1000)] == names
