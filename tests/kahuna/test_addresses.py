"""Which addresses machines are given, and which they may ask for."""

import pytest

from kahuna.domain.addresses import check_mac, free_address
from kahuna.domain.errors import Refusal
from kowa.v2 import adapter_pb2, subnet_pb2
from tests.estate import Estate, estate
from tests.world import World


@pytest.fixture
def site(cloud: World) -> Estate:
    return estate(cloud)


def card(site: Estate, subnet: subnet_pb2.Subnet, name: str, address: str = "") -> str:
    """The address of a new card."""
    wanted = adapter_pb2.Adapter(project=site.project.meta.id, name=name, subnet=subnet.meta.id, address=address)
    return site.client.of(adapter_pb2.Adapter).begin_create(wanted).resource.address


def test_no_machine_is_given_its_name_servers_address_and_one_that_asks_may_be_it(site: Estate) -> None:
    wanted = subnet_pb2.Subnet(
        vnet=site.vnet.meta.id, name="b", cidr="10.30.0.0/24", dns=["10.30.0.2", "9.9.9.9", "10.30.0.4"]
    )
    subnet = site.client.of(subnet_pb2.Subnet).begin_create(wanted).resource
    assert [card(site, subnet, name) for name in ("one", "two")] == ["10.30.0.3", "10.30.0.5"]
    assert card(site, subnet, "resolver", "10.30.0.4") == "10.30.0.4"


def test_a_subnet_of_name_servers_has_no_address_to_give() -> None:
    with pytest.raises(Refusal, match=r"subnet 10\.30\.0\.0/30 has no free address"):
        free_address("10.30.0.0/30", "10.30.0.1", ["10.30.0.2"])


@pytest.mark.parametrize("mac", ["00:00:5e:00:01:0a", "00:00:5E:00:02:ff", "00:00:5e:12:34:56"])
def test_a_hardware_address_that_routers_share_is_no_machines(mac: str) -> None:
    with pytest.raises(Refusal, match=r"mac: 00:00:5[eE].* is of 00:00:5e, which routers share"):
        check_mac(mac)


def test_another_hardware_address_may_be_asked_for() -> None:
    check_mac("00:00:5f:00:01:0a")
