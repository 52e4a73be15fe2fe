"""Addresses that the platform itself uses on a vnet: Kahuna allocates them to no instance."""

import hashlib
from collections.abc import Mapping

METADATA_ADDRESS = "169.254.169.254"
# IANA's range for addresses that routers share (VRRP and the like): an instance with one would take over theirs.
_ROUTERS = "00:00:5e:"
# The first byte of taps, the hosts' ends of adapters: libvirt takes the other bytes from the adapter's address.
_TAPS = "fe:"


def metadata_mac(vnet: str) -> str:
    """The metadata service's MAC address: the same on each host, so that an instance still finds it after a move."""
    return _derived("02", f"metadata {vnet}")


def metadata_port_mac(vnet: str) -> str:
    """The MAC address of the metadata service's bridge port: high, so that no bridge takes it as its own."""
    return _derived("fe", f"metadata {vnet}")


def bridge_mac(kaktus: str, vnet: str) -> str:
    """The MAC address of a vnet's bridge on one host."""
    return _derived("02", f"{kaktus} {vnet}")


def find_mac_owner(mac: str, vnets: Mapping[str, str], hosts: Mapping[str, str]) -> str:
    """The platform's use of a hardware address, as a phrase; empty if an instance may have it.

    `vnets` are those that share the instance's bridge, `hosts` those it may be placed on: names by id.
    """
    mac = mac.lower()
    if mac.startswith(_ROUTERS):
        return f"of {_ROUTERS[:-1]}, which routers share (VRRP)"
    if mac.startswith(_TAPS):
        return f"of {_TAPS[:-1]}, which hosts' ends of adapters have"
    for vnet, name in vnets.items():
        if mac == metadata_mac(vnet):
            return f"the metadata service's of vnet {name}"
        for host, host_name in hosts.items():
            if mac == bridge_mac(host, vnet):
                return f"that of the bridge of vnet {name} on {host_name}"
    return ""


def _derived(first: str, seed: str) -> str:
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return ":".join([first, *(digest[at : at + 2] for at in range(0, 10, 2))])
