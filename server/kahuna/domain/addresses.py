"""Addresses of networks and cards."""

import ipaddress
import secrets
from collections.abc import Collection

from kahuna.domain.errors import Refusal, invalid

# Locally administered, unicast; the rest is drawn.
MAC_PREFIX = "52:54:00"


def check_subnet(cidr: str, gateway: str, others: Collection[tuple[str, str]]) -> str:
    """The gateway of a new subnet: the one asked for, or the first address.

    `others` are the names and networks of the region's subnets. Raises Refusal when the network is too small for a
    machine, overlaps one of them, or the gateway is not one of its host addresses.
    """
    network = ipaddress.IPv4Network(cidr)
    if network.prefixlen > 30:
        raise invalid("cidr", f"{cidr} has no room for a gateway and a machine; use /30 or wider")
    if network.prefixlen < 8:
        raise invalid("cidr", f"{cidr} is wider than /8; split it")
    for name, other in others:
        if network.overlaps(ipaddress.IPv4Network(other)):
            raise invalid(
                "cidr", f"{cidr} overlaps {other} of subnet {name}; choose a range that is free in the region"
            )
    if not gateway:
        return str(network[1])
    address = ipaddress.IPv4Address(gateway)
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise invalid("gateway", f"{gateway} is not a host address of {cidr}")
    return gateway


def check_address(address: str, cidr: str, gateway: str) -> None:
    """Raises Refusal unless the address can be a machine's in the subnet."""
    network, asked = ipaddress.IPv4Network(cidr), ipaddress.IPv4Address(address)
    if asked not in network or asked in (network.network_address, network.broadcast_address):
        raise invalid("address", f"{address} is not a host address of {cidr}")
    if address == gateway:
        raise invalid("address", f"{address} is the subnet's gateway")


def free_address(cidr: str, gateway: str, taken: Collection[str]) -> str:
    """The lowest free host address of a subnet. Raises Refusal NO_ADDRESS when there is none."""
    network = ipaddress.IPv4Network(cidr)
    held = {int(ipaddress.IPv4Address(address)) for address in (*taken, gateway)}
    for candidate in range(int(network.network_address) + 1, int(network.broadcast_address)):
        if candidate not in held:
            return str(ipaddress.IPv4Address(candidate))
    raise Refusal("NO_ADDRESS", f"subnet {cidr} has no free address; delete an adapter or add a subnet")


def draw_mac() -> str:
    """A hardware address by chance; the database says whether it is taken."""
    tail = secrets.token_bytes(3)
    return f"{MAC_PREFIX}:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}"
