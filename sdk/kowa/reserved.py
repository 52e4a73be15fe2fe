"""Addresses the platform itself has on a vnet: Kahuna gives them to nobody, and the agents use them."""

import hashlib
from collections.abc import Mapping

METADATA_ADDRESS = "169.254.169.254"
# IANA's: what routers share by VRRP and the like is of it. Whoever had such an address would take theirs.
_ROUTERS = "00:00:5e:"
# Hosts' ends of adapters: libvirt gives a tap its adapter's hardware address with this in front.
_TAPS = "fe:"


def metadata_mac(vnet: str) -> str:
    """The metadata service's. The same on each host, so that a machine that moves finds it as it was."""
    return _derived("02", f"metadata {vnet}")


def metadata_port_mac(vnet: str) -> str:
    """That of the bridge port behind which the metadata service is: high, so that no bridge takes it for its own."""
    return _derived("fe", f"metadata {vnet}")


def bridge_mac(kaktus: str, vnet: str) -> str:
    """That of a vnet's bridge on one host."""
    return _derived("02", f"{kaktus} {vnet}")


def find_mac_owner(mac: str, vnets: Mapping[str, str], hosts: Mapping[str, str]) -> str:
    """Whose a hardware address is, in words; empty if it may be a machine's.

    `vnets` are those that share the machine's bridge and `hosts` those the machine may come to, by id with their names.
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
