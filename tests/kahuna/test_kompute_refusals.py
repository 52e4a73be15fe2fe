"""Refused komputes: nothing is created or changed, and the error names the kompute's own field."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.v2 import (
    kompute_pb2,
    meta_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
)
from tests.control_plane import GIB, ControlPlane
from tests.kahuna.komputes import adapter, kinds_changed_since, run_in_kahuna, wait_until_idle, wanted
from tests.kahuna.transports import TRANSPORTS, calling_through
from tests.site import Site, make_site

PB = 10**15


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


def elsewhere(site: Site) -> tuple[str, str]:
    """The ids of a zone and a subnet of another region."""
    client = site.cloud.client
    region = site.cloud.add_region(f"far-{len(list(client.regions.list()))}")
    lan = client.vnets.create(vnet_pb2.Vnet(region=region.meta.id, name="lan"))
    subnet = client.subnets.create(subnet_pb2.Subnet(vnet=lan.meta.id, name="lan", cidr="10.30.0.0/24"))
    return site.cloud.add_zone(region).meta.id, subnet.meta.id


def grown_template(site: Site) -> None:
    """Reports the template as larger than the disk."""

    def work(tx: Transaction) -> None:
        template = tx.lock(template_pb2.Template, site.template.meta.id)
        template.status.size = 3 * GIB
        tx.report("Template", template)

    run_in_kahuna(site, work)


def full_subnet(site: Site) -> dict[str, Any]:
    """Two adapters in a subnet with one free address."""
    lan = vnet_pb2.Vnet(region=site.region.meta.id, name="small")
    small = subnet_pb2.Subnet(vnet=site.cloud.client.vnets.create(lan).meta.id, name="small", cidr="10.40.0.0/30")
    subnet = site.cloud.client.subnets.create(small).meta.id
    return {"adapters": [adapter(site, subnet), adapter(site, subnet)]}


def small_pool(site: Site) -> None:
    """Reports the pool as too small for another disk."""

    def work(tx: Transaction) -> None:
        pool = tx.lock(storage_pool_pb2.StoragePool, site.pool.meta.id)
        pool.status.capacity = GIB
        tx.report("StoragePool", pool)

    run_in_kahuna(site, work)


def taken_address(site: Site) -> dict[str, Any]:
    """Two adapters; the second requests the address of an existing one."""
    site.add_adapter("other", "10.20.0.9")
    return {"adapters": [adapter(site), adapter(site, address="10.20.0.9")]}


def deleted_template(site: Site) -> None:
    """Marks the template for deletion."""
    run_in_kahuna(site, lambda tx: tx.mark("Template", site.template.meta.id))


# The kompute's name, a function that prepares the site and returns changed fields, the error's reason, field, message.
Row = tuple[str, Callable[[Site], Any], str, str, str]
REFUSALS: list[Row] = [
    ("no-cpu", lambda site: {"vcpus": 0}, "INVALID_ARGUMENT", "vcpus", "is required"),
    ("tiny", lambda site: {"data_disk": 1}, "INVALID_ARGUMENT", "data_disk", "1048576 at least"),
    ("a-nothing", lambda site: {"template": "x"}, "INVALID_ARGUMENT", "template", "no template has the id"),
    (
        "b-nothing",
        lambda site: {"adapters": [adapter(site, "x")]},
        "INVALID_ARGUMENT",
        "adapters[0].subnet",
        "no subnet",
    ),
    (
        "nowhere",
        lambda site: {"zone": "", "region": site.region.meta.id, "memory": 100 * PB},
        "NO_HOST",
        "region",
        "host-1",
    ),
    ("no-host", lambda site: {"memory": 100 * PB}, "NO_HOST", "zone", "host-1"),
    (
        "a-name",
        lambda site: site.client.komputes.create(wanted(site, "a-name", adapters=[])) and {},
        "NAME_TAKEN",
        "",
        "",
    ),
    ("b-name", lambda site: site.add_volume("b-name-os") and {}, "NAME_TAKEN", "name", "another volume"),
    ("c-name", lambda site: site.add_volume("c-name-data") and {}, "NAME_TAKEN", "name", "'c-name-data'"),
    ("d-name", lambda site: site.add_adapter("d-name-eth1") and {}, "NAME_TAKEN", "name", "another adapter"),
    ("e-name", lambda site: site.add_instance("e-name") and {}, "NAME_TAKEN", "name", "'e-name-os'"),
    ("full", full_subnet, "NO_ADDRESS", "adapters[1].subnet", "has no free address"),
    ("taken", taken_address, "ADDRESS_TAKEN", "adapters[1].address", "10.20.0.9 belongs to another adapter"),
    (
        "twice",
        lambda site: {"adapters": [adapter(site, "", "10.20.0.8")] * 2},
        "ADDRESS_TAKEN",
        "adapters[1].address",
        "",
    ),
    (
        "out",
        lambda site: {"adapters": [adapter(site, "", "10.9.0.9")]},
        "INVALID_ARGUMENT",
        "adapters[0].address",
        "host",
    ),
    ("a-far", lambda site: {"zone": elsewhere(site)[0]}, "INVALID_ARGUMENT", "template", "in another region"),
    (
        "b-far",
        lambda site: {"adapters": [adapter(site, elsewhere(site)[1])]},
        "INVALID_ARGUMENT",
        "adapters[0].subnet",
        "",
    ),
    ("small", grown_template, "INVALID_ARGUMENT", "disk", "less than the 3 GiB of template"),
    ("room", small_pool, "NO_SPACE", "disk", "storage pool local has 0 bytes"),
    ("going", deleted_template, "DELETING", "", "template: template "),
]


def test_a_refused_kompute_creates_nothing_and_the_error_names_its_field(site: Site) -> None:
    site.connect_host()
    for name, prepare, reason, field, message in REFUSALS:
        changes = prepare(site) or {}
        kompute = wanted(site, name, **{"adapters": [adapter(site), adapter(site)]} | changes)
        revision = wait_until_idle(site)
        with pytest.raises(errors.KowaError) as refused:
            site.client.komputes.begin_create(kompute)
        error = refused.value
        assert (error.reason, error.message[: len(field)]) == (reason, field), name
        assert message in error.message, name
        assert not field or [wrong.field for wrong in error.violations] == [field], name
        assert kinds_changed_since(site, revision) == [], name


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("transport", TRANSPORTS[1:])
def test_a_refusal_names_its_field_in_every_client(site: Site, transport: str, tmp_path: Path) -> None:
    site.connect_host()
    kompute = wanted(site, adapters=[adapter(site, address="10.9.0.9")])
    revision = wait_until_idle(site)
    with calling_through(site, transport, tmp_path), pytest.raises(errors.KowaError) as refused:
        site.client.komputes.begin_create(kompute)
    assert "adapters[0].address: 10.9.0.9 is not a host address" in refused.value.message
    assert kinds_changed_since(site, revision) == []


def test_a_refused_update_changes_no_part(site: Site) -> None:
    site.connect_host()
    web = site.client.komputes.create(wanted(site))
    diskless = site.client.komputes.create(wanted(site, "diskless", data_disk=0, adapters=[]))
    site.add_volume("new-data")
    revision = wait_until_idle(site)
    for target, field, value, message in [
        (web, "disk", GIB // 2, "disk: a volume never shrinks: it has 1 GiB"),
        (web, "data_disk", GIB, "data_disk: a volume never shrinks"),
        (web, "data_disk", 0, "data_disk: can't be added or taken away"),
        (diskless, "data_disk", GIB, "data_disk: can't be added or taken away"),
        (web, "memory", 100 * PB, "host host-1 can't hold the growth"),
        (web, "name", "new", "name: another volume of its project is called 'new-data'"),
        (web, "zone", site.region.meta.id, "zone: can't be changed yet"),
        (web, "adapters", [], "adapters: can't be changed"),
    ]:
        change: dict[str, Any] = {field: value}
        sent = kompute_pb2.Kompute(meta=meta_pb2.Meta(id=target.meta.id), **change)
        with pytest.raises(errors.KowaError) as refused:
            site.client.komputes.begin_update(sent, [field, "description"])
        assert message in refused.value.message
    stale = kompute_pb2.Kompute(meta=meta_pb2.Meta(id=web.meta.id, etag="0" * 16), vcpus=2)
    with pytest.raises(errors.KowaError, match="the etag is"):
        site.client.komputes.begin_update(stale, ["vcpus"])
    assert kinds_changed_since(site, revision) == []
