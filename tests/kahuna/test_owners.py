"""Networks of projects, ensured resources, and the overcommitment of pools."""

from typing import Any

import pytest

from kahuna.kinds.kind import Kind, Outcome
from kahuna.kinds.tracking import Cause
from kowa import errors
from kowa.v2 import adapter_pb2, project_pb2, storage_pool_pb2, subnet_pb2, vnet_pb2
from tests.control_plane import GIB, ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site with the projects shop and bank; its region has a shared vnet lan with 10.20.0.0/24."""
    site = make_site(cloud)
    cloud.client.of(project_pb2.Project).create(project_pb2.Project(name="bank"))
    return site


def project(site: Site, name: str) -> str:
    return str(next(iter(site.client.projects.list(filter=f'name = "{name}"'))).meta.id)


def vnet(site: Site, owner: str = "", name: str = "lan") -> str:
    wanted = vnet_pb2.Vnet(region=site.region.meta.id, name=name, project=project(site, owner) if owner else "")
    return str(site.client.vnets.begin_create(wanted).resource.meta.id)


def subnet(site: Site, vnet_id: str, cidr: str, name: str = "a") -> str:
    return str(site.client.subnets.begin_create(subnet_pb2.Subnet(vnet=vnet_id, name=name, cidr=cidr)).resource.meta.id)


def test_each_project_has_its_own_names_and_addresses(site: Site) -> None:
    """The region's shared networks and each project's can have the same names and ranges."""
    shop, bank = vnet(site, "shop"), vnet(site, "bank")
    for owner in (shop, bank):
        subnet(site, owner, "10.20.0.0/24")
    with pytest.raises(errors.Conflict, match="another vnet of its project and region is called 'lan'"):
        vnet(site, "shop")
    with pytest.raises(errors.Conflict, match="another vnet of its region is called 'lan'"):
        vnet(site)
    with pytest.raises(errors.Invalid, match=r"overlaps 10.20.0.0/24 of subnet a; choose a range that is free of proj"):
        subnet(site, vnet(site, "shop", "dmz"), "10.20.0.128/25")
    with pytest.raises(errors.Invalid, match=r"of subnet lan; choose a range that is free in region eu"):
        subnet(site, vnet(site, "", "dmz"), "10.20.0.128/25")


def test_a_projects_network_is_for_its_own_adapters(site: Site) -> None:
    own = subnet(site, vnet(site, "shop", "private"), "10.30.0.0/24")
    adapters = site.client.of(adapter_pb2.Adapter)
    with pytest.raises(errors.Invalid, match="subnet: subnet a is another project's; choose one of this project's"):
        adapters.begin_create(adapter_pb2.Adapter(project=project(site, "bank"), name="eth0", subnet=own))
    created = adapters.begin_create(adapter_pb2.Adapter(project=project(site, "shop"), name="eth0", subnet=own))
    assert created.resource.address == "10.30.0.2"
    with pytest.raises(errors.Conflict, match="vnet private has 1 subnet: a"):
        site.client.vnets.begin_delete(next(iter(site.client.vnets.list(filter='name = "private"'))).meta.id)
    with pytest.raises(errors.Conflict, match=r"project shop has .*1 vnet: private"):
        site.client.projects.begin_delete(project(site, "shop"))


def test_ensure_finds_a_name_within_the_same_project_only(site: Site) -> None:
    """A vnet's name is unique among the region's shared vnets, or among those of its project."""
    vnets, cause = site.cloud.kahuna.kinds["Vnet"], Cause("EnsureVnet", "admin")

    def ensure(owner: str) -> vnet_pb2.Vnet:
        wanted = vnet_pb2.Vnet(region=site.region.meta.id, name="dmz", project=owner and project(site, owner))
        ensured: vnet_pb2.Vnet = site.cloud.loop.run(
            site.cloud.kahuna.store.run(lambda tx: vnets.ensure(tx, cause, wanted).resource)
        )
        assert ensured.project == wanted.project
        return ensured

    first = [ensure(owner).meta.id for owner in ("shop", "", "bank")]
    assert len(set(first)) == 3
    assert [ensure(owner).meta.id for owner in ("shop", "", "bank")] == first


def test_ensuring_one_name_twice_at_once_gives_one_resource(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower transaction finds nothing of that name at first, and is run again."""
    first, real_find, results = ensure_adapter(site), Kind.find_by_name, list[Any]()

    def find_nothing_once(kind: Any, *found_by: Any) -> Any:
        results.append(real_find(kind, *found_by) if results else None)
        return results[-1]

    monkeypatch.setattr(Kind, "find_by_name", find_nothing_once)
    again = ensure_adapter(site)
    assert (again.resource.meta.id, again.operation) == (first.resource.meta.id, None)
    assert results == [None, again.resource]


def test_a_hardware_address_in_capitals_is_lower_cased(site: Site) -> None:
    first, again = (ensure_adapter(site, mac="52:54:00:AA:BB:CC") for _ in range(2))
    assert first.resource.mac == again.resource.mac == "52:54:00:aa:bb:cc"
    assert again.operation is None


def ensure_adapter(site: Site, mac: str = "") -> Outcome[adapter_pb2.Adapter]:
    """Ensures an adapter by its name, as a timer inside Kahuna would."""
    wanted = adapter_pb2.Adapter(project=project(site, "shop"), subnet=site.subnet.meta.id, name="eth0", mac=mac)
    adapters, cause = site.cloud.kahuna.kinds["Adapter"], Cause("EnsureAdapter", "timer")
    return site.cloud.loop.run(site.cloud.kahuna.store.run(lambda tx: adapters.ensure(tx, cause, wanted)))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (adapter_pb2.Adapter, {"address6": "fd00::2"}),
        (adapter_pb2.Adapter, {"allowed_addresses": ["10.9.0.0/24"]}),
        (subnet_pb2.Subnet, {"cidr6": "fd00:20::/64"}),
    ],
)
def test_a_field_that_is_not_served_yet_is_refused_by_name(site: Site, kind: Any, fields: dict[str, Any]) -> None:
    owner = {"project": project(site, "shop"), "subnet": site.subnet.meta.id}
    other = {"vnet": site.vnet.meta.id, "cidr": "10.40.0.0/24"}
    wanted = kind(name="new", **(owner if kind is adapter_pb2.Adapter else other), **fields)
    with pytest.raises(errors.KowaError, match=f"{next(iter(fields))}: is not served yet"):
        site.client.of(kind).begin_create(wanted)


class PoolWorker(FakeWorker):
    """A host whose pools have 10 GiB."""

    def status_of(self, noun: str) -> Any:
        """A pool's status with its capacity."""
        return storage_pool_pb2.StoragePoolStatus(capacity=10 * GIB) if noun == "storage_pool" else None


def test_volumes_of_a_pool_may_not_exceed_its_capacity_times_overcommit(site: Site) -> None:
    site.connect_host(PoolWorker())
    until(lambda: site.client.storage_pools.get(site.pool.meta.id).status.capacity, what="the pool's capacity")
    first = site.add_volume("one", 6 * GIB).resource
    with pytest.raises(errors.Exhausted, match="storage pool local has 4 GiB of 10 GiB left to promise, 5 GiB asked"):
        site.add_volume("two", 5 * GIB)
    site.add_volume("two", 3 * GIB)
    first.size = 8 * GIB
    with pytest.raises(errors.Exhausted, match="has 1 GiB of 10 GiB left to promise, 2 GiB asked"):
        site.client.volumes.begin_update(first, ["size"])
    pool = site.client.storage_pools.get(site.pool.meta.id)
    assert pool.overcommit == 1
    pool.overcommit = 1.5
    site.client.storage_pools.begin_update(pool, ["overcommit"])
    site.client.volumes.begin_update(first, ["size"])
    with pytest.raises(errors.Exhausted, match="has 4 GiB of 15 GiB left to promise"):
        site.add_volume("three", 5 * GIB)
