"""The addresses that adapters get, and those they may request."""

import pytest

from kahuna.domain.addresses import check_mac, free_address, mac_of
from kahuna.domain.errors import Refusal
from kowa import reserved
from kowa.errors import KowaError
from kowa.v2 import adapter_pb2, subnet_pb2, vnet_pb2
from tests.control_plane import ControlPlane
from tests.site import Site, make_site


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    return make_site(cloud)


def new_adapter(site: Site, subnet: subnet_pb2.Subnet, name: str, address: str = "") -> str:
    """The address of a new adapter."""
    wanted = adapter_pb2.Adapter(project=site.project.meta.id, name=name, subnet=subnet.meta.id, address=address)
    return site.client.of(adapter_pb2.Adapter).begin_create(wanted).resource.address


def test_addresses_of_name_servers_are_not_allocated_unless_requested(site: Site) -> None:
    wanted = subnet_pb2.Subnet(
        vnet=site.vnet.meta.id, name="b", cidr="10.30.0.0/24", dns=["10.30.0.2", "9.9.9.9", "10.30.0.4"]
    )
    subnet = site.client.of(subnet_pb2.Subnet).begin_create(wanted).resource
    assert [new_adapter(site, subnet, name) for name in ("one", "two")] == ["10.30.0.3", "10.30.0.5"]
    assert new_adapter(site, subnet, "resolver", "10.30.0.4") == "10.30.0.4"


def test_a_subnet_full_of_name_servers_has_no_free_address() -> None:
    with pytest.raises(Refusal, match=r"subnet 10\.30\.0\.0/30 has no free address"):
        free_address("10.30.0.0/30", "10.30.0.1", ["10.30.0.2"])


@pytest.mark.parametrize("mac", ["00:00:5e:00:01:0a", "00:00:5E:00:02:ff", "00:00:5e:12:34:56"])
def test_a_hardware_address_shared_by_routers_is_refused(mac: str) -> None:
    with pytest.raises(Refusal, match=r"mac: 00:00:5[eE].* is of 00:00:5e, which routers share"):
        check_mac(mac, {}, {})


def test_a_hardware_address_next_to_the_routers_range_is_accepted() -> None:
    check_mac("00:00:5f:00:01:0a", {}, {})


def test_hardware_addresses_of_the_platform_on_a_vnet_are_refused_without_a_change(site: Site) -> None:
    """Including those of other vnets on the same bridge, and of every host that may run the instance."""
    on_br0 = [
        site.client.of(vnet_pb2.Vnet).create(vnet_pb2.Vnet(region=site.region.meta.id, name=name, interface="br0"))
        for name in ("office", "lab")
    ]
    wanted = subnet_pb2.Subnet(vnet=on_br0[0].meta.id, name="b", cidr="10.30.0.0/24")
    office = site.client.of(subnet_pb2.Subnet).begin_create(wanted).resource
    vnet, host, revision = site.vnet.meta.id, site.host.meta.id, site.cloud.kahuna.store.view.revision
    for subnet, mac, reason in (
        (site.subnet, reserved.metadata_mac(vnet), f"is the metadata service's of vnet {site.vnet.name}; choose"),
        (site.subnet, reserved.metadata_mac(vnet).upper(), "is the metadata service's of vnet"),
        (site.subnet, reserved.bridge_mac(host, vnet), f"the bridge of vnet {site.vnet.name} on {site.host.name}"),
        (site.subnet, reserved.metadata_port_mac(vnet), "is of fe, which hosts' ends of adapters have"),
        (site.subnet, "fe:54:00:12:34:56", "is of fe, which hosts' ends of adapters have; choose another, or leave"),
        (office, reserved.metadata_mac(on_br0[1].meta.id), "is the metadata service's of vnet lab"),
    ):
        with pytest.raises(KowaError, match=rf"mac: {mac.lower()} .*{reason}") as refused:
            site.client.of(adapter_pb2.Adapter).begin_create(
                adapter_pb2.Adapter(project=site.project.meta.id, name="b", subnet=subnet.meta.id, mac=mac)
            )
        assert refused.value.reason == "INVALID_ARGUMENT"
    assert site.cloud.kahuna.store.view.revision == revision


def test_generated_hardware_addresses_are_never_the_platforms() -> None:
    assert reserved.find_mac_owner(mac_of(b"\x01\x02\x03"), {}, {}) == ""
    assert not mac_of(b"\x01\x02\x03").startswith(reserved.metadata_mac("any")[:3])
