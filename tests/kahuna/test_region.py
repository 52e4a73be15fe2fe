"""An instance's region is required, its zone is optional, and Kahuna chooses the host."""

import pytest

from kowa import errors
from kowa.v2 import instance_pb2
from tests.control_plane import GIB, ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site with a host of 16 GiB in zone eu-a, and one of 64 GiB without a storage pool in eu-b."""
    site = make_site(cloud)
    site.connect_host()
    agent, secret = cloud.add_agent("agent-b")
    other = cloud.add_host(cloud.add_zone(site.region, "eu-b"), "host-1", agent.meta.id)
    cloud.dial(secret, FakeWorker(memory=64 * GIB), "b")
    until(lambda: cloud.client.kaktuses.get(other.meta.id).status.memory, what="the other host's capacity")
    return site


def wanted(site: Site, name: str, **fields: str) -> instance_pb2.Instance:
    """An instance to create, with these fields and without a default zone."""
    instance = site.wanted(name)
    instance.ClearField("zone")
    instance.MergeFrom(instance_pb2.Instance(**fields))  # type: ignore[arg-type]
    return instance


def test_without_a_zone_an_instance_is_placed_in_any_zone_of_its_region(site: Site) -> None:
    web = site.client.instances.create(wanted(site, "web", region=site.region.meta.id))
    assert (web.region, web.zone, web.kaktus) == (site.region.meta.id, "", site.host.meta.id)
    large = wanted(site, "diskless", region=site.region.meta.id)
    large.memory = 32 * GIB
    with pytest.raises(errors.Exhausted) as refused:
        site.client.instances.create(large)
    assert refused.value.message == (
        "no host of the region can hold the machine (eu-a/host-1: has 15 GiB of 16 GiB of memory free, 32 GiB asked; "
        "eu-b/host-1: does not reach the storage pool of its disks); ask for less or add a host"
    )


def test_a_zone_implies_the_region_and_limits_the_placement(site: Site) -> None:
    web = site.client.instances.create(wanted(site, "web", zone=site.zone.meta.id))
    assert (web.region, web.zone) == (site.region.meta.id, site.zone.meta.id)
    both = wanted(site, "db", zone=site.zone.meta.id, region=site.region.meta.id)
    assert site.client.instances.create(both).kaktus == site.host.meta.id
    eu_b = next(zone.meta.id for zone in site.client.zones.list(filter="name = eu-b"))
    with pytest.raises(errors.Exhausted, match=r"no host of the zone can hold the machine .host-1: does not reach"):
        site.client.instances.create(wanted(site, "far", zone=eu_b))
    assert [found.name for found in site.client.instances.list(filter=f"region = {web.region}", order_by="name")] == [
        "db", "web",
    ]  # fmt: skip


def test_references_to_different_regions_are_refused(site: Site) -> None:
    us = site.cloud.add_region("us")
    fields = {"zone": site.zone.meta.id, "region": us.meta.id}
    with pytest.raises(errors.Invalid, match="zone: zone eu-a lies in another region; choose one of the machine's"):
        site.client.instances.create(wanted(site, "web", **fields))
    with pytest.raises(errors.Invalid, match="region: is required, unless a zone of it is given"):
        site.client.instances.create(wanted(site, "db"))
    with pytest.raises(errors.Invalid, match=r"volumes\[0\]: volume far-os lies in another region than the machine"):
        site.client.instances.create(wanted(site, "far", region=us.meta.id))
    site.client.instances.create(wanted(site, "here", region=site.region.meta.id))
    with pytest.raises(errors.Conflict, match=r"region eu has .*1 instance: here"):
        site.client.regions.delete(site.region.meta.id)
