"""Lists: filter values, page tokens and the size of pages."""

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
    """One page of a list."""
    method = KINDS[kind].service.methods["list"]
    request = contract.load().stub(method.request.name)(**query)
    return cloud.client.call(method, request).resource


def encoded(token: object) -> str:
    return base64.urlsafe_b64encode(token if isinstance(token, bytes) else json.dumps(token).encode()).decode()


def altered(token: str, **changes: object) -> str:
    """A valid token with some of its content changed."""
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
def test_a_page_token_is_valid_for_its_own_list_only(cloud: ControlPlane, query: dict[str, Any]) -> None:
    for name in ("eu", "us"):
        cloud.add_region(name)
        cloud.client.of(project_pb2.Project).create(project_pb2.Project(name=name))
    token = listed(cloud, order_by="name", page_size=1).next_page_token
    assert [found.name for found in listed(cloud, order_by="name", page_token=token).regions] == ["us"]
    with pytest.raises(errors.Invalid, match="page_token: is not one that this list returned; start again"):
        listed(cloud, **{"order_by": "name", **query}, page_token=token)


@pytest.fixture
def two_instances(cloud: ControlPlane) -> Site:
    """A site with a running instance, web, and a stopped one, db, with more memory."""
    site = make_site(cloud)
    site.connect_host()
    cloud.client.instances.create(site.wanted("web"))
    db = cloud.client.instances.create(site.wanted("db", memory=3 * GIB // 2))
    cloud.client.instances.stop(db.meta.id)
    return site


TABLE_VALUES: list[tuple[str, list[str]]] = [
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


def test_filters_accept_values_as_tables_show_them(two_instances: Site) -> None:
    for condition, found in TABLE_VALUES:
        listed = two_instances.client.instances.list(filter=condition, order_by="name")
        assert [instance.name for instance in listed] == found, condition


def test_references_are_filtered_by_id(two_instances: Site) -> None:
    def names(kind: str, condition: str) -> list[str]:
        return [found.name for found in getattr(two_instances.client, kind).list(filter=condition, order_by="name")]

    project, web = two_instances.project.meta.id, next(two_instances.client.instances.list(filter="name = web"))
    assert names("instances", f"project = {project}") == ["db", "web"]
    assert names("instances", f"project = {project.upper()}") == ["db", "web"]
    assert names("instances", f"project != {web.meta.id}") == ["db", "web"]
    assert names("instances", f"volumes:{web.volumes[0]}") == ["web"]
    two_instances.add_volume("free")
    assert names("volumes", 'instance = ""') == ["free"]


@pytest.mark.parametrize(
    "keys",
    [[5], [None], [[1]], [{}], [], ["x", "y"], 5, "n", {}, None],
    ids=repr,
)
def test_an_altered_token_is_refused(cloud: ControlPlane, keys: object) -> None:
    for name in ("eu", "us"):
        cloud.add_region(name)
    token = listed(cloud, order_by="name", page_size=1).next_page_token
    with pytest.raises(errors.Invalid, match="page_token: is not one"):
        listed(cloud, order_by="name", page_token=altered(token, keys=keys))


@pytest.mark.parametrize(
    "token",
    ["x", "é", encoded([]), encoded(5), encoded(None), encoded(b"\xff\xfe"), encoded(b"[" * 100_000), "A" * 100_000],
    ids=lambda token: token[:8],
)
def test_text_that_is_not_a_token_is_refused(cloud: ControlPlane, token: str) -> None:
    with pytest.raises(errors.Invalid, match="page_token: is not one"):
        listed(cloud, page_token=token)


def test_long_sort_values_give_short_tokens_and_the_pages_are_complete(cloud: ControlPlane) -> None:
    # Values with a common start that is longer than a token keeps.
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
def test_a_page_ends_at_the_size_limit_of_a_response_and_the_next_goes_on(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    site.connect_host()
    names = [f"m{number:02}" for number in range(12)]
    for name in names:
        volume = site.add_volume(name, size=1 << 20).resource.meta.id
        instance = instance_pb2.Instance(
            project=site.project.meta.id,
            zone=site.zone.meta.id,
            name=name,
            vcpus=1,
            memory=1 << 20,
            volumes=[volume],
            ssh_keys=[long_key(8192)] * 32,  # a mebibyte
        )
        cloud.client.of(instance_pb2.Instance).begin_create(instance)
    first = listed(cloud, "Instance", order_by="name", page_size=1000)
    assert 1 < len(first.instances) < len(names)
    assert first.ByteSize() < 4 << 20
    assert first.total_size == len(names)
    assert [found.name for found in cloud.client.instances.list(order_by="name", page_size=1000)] == names
