"""Hardware addresses that the platform reserves on a vnet."""

import pytest

from kowa import reserved

LAN, DMZ, HOST = "7ad3a5d6-2b7a-4b43-8f2e-1d3b8f0a9c11", "0b6f2a34-98ad-4f0e-a5a3-77a0f2a5d922", "c5ad0c06"
VNETS, HOSTS = {LAN: "lan", DMZ: "dmz"}, {"other": "host-2", HOST: "host-1"}


@pytest.mark.parametrize(
    ("mac", "owner"),
    [
        (reserved.metadata_mac(LAN), "the metadata service's of vnet lan"),
        (reserved.metadata_mac(DMZ).upper(), "the metadata service's of vnet dmz"),
        (reserved.bridge_mac(HOST, LAN), "that of the bridge of vnet lan on host-1"),
        (reserved.metadata_port_mac(LAN), "of fe, which hosts' ends of adapters have"),
        ("FE:54:00:12:34:56", "of fe, which hosts' ends of adapters have"),
        ("00:00:5E:00:01:0a", "of 00:00:5e, which routers share (VRRP)"),
        ("00:00:5f:00:01:0a", ""),
        ("02:00:00:00:00:01", ""),
        ("52:54:00:12:34:56", ""),
        (reserved.metadata_mac("another's"), ""),
    ],
)
def test_the_owner_of_a_hardware_address_is_found(mac: str, owner: str) -> None:
    assert reserved.find_mac_owner(mac, VNETS, HOSTS) == owner


def test_derived_addresses_never_change() -> None:
    """Existing bridges and services use them, set up by agents of any version."""
    assert reserved.metadata_mac(LAN) == "02:af:c6:73:1e:b3"
    assert reserved.metadata_port_mac(LAN) == "fe:af:c6:73:1e:b3"
    assert reserved.bridge_mac(HOST, LAN) == "02:0e:45:c4:2d:71"
