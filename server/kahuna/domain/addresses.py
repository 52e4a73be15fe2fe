"""Addresses of networks and adapters."""

import ipaddress
from collections.abc import Collection, Mapping

from kahuna.domain.errors import Refusal, invalid
from kowa.reserved import find_mac_owner

# Locally administered, unicast; the rest is random.
MAC_PREFIX = "52:54:00"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Ranges that no instance gets an address of, each with the reason.
_NOT_FOR_HOSTS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(cidr), reason)
    for cidr, reason in (
        ("0.0.0.0/8", "is not for hosts"),
        ("127.0.0.0/8", "a host keeps for itself"),
        ("169.254.0.0/16", "is link-local: machines find their metadata there"),
        ("224.0.0.0/4", "is for multicast"),
        ("240.0.0.0/4", "is reserved"),
        ("::/128", "is not for hosts"),
        ("::1/128", "a host keeps for itself"),
        ("::ffff:0:0/96", "holds IPv4 addresses: write them as such"),
        ("::/8", "is reserved"),
        ("fe80::/10", "is link-local"),
        ("fec0::/10", "was site-local and is given up: use fd00::/8"),
        ("ff00::/8", "is for multicast"),
    )
)


def check_subnet(cidr: str, gateway: str, others: Collection[tuple[str, str]], domain: str) -> str:
    """Returns the gateway of a new subnet: the given one, or by default the first address.

    `others` are the names and networks of its routing domain's subnets; `domain` names that domain in the refusal.
    Raises Refusal when the network is too small for an instance, overlaps one of them or a reserved range, or when the
    gateway is not one of its host addresses.
    """
    network = ipaddress.IPv4Network(cidr)
    if network.prefixlen > 30:
        raise invalid("cidr", f"{cidr} has no room for a gateway and a machine; use /30 or wider")
    if network.prefixlen < 8:
        raise invalid("cidr", f"{cidr} is wider than /8; split it")
    reserved = reserved_range(network)
    if reserved:
        raise invalid("cidr", f"{cidr} overlaps {reserved}; use a private range, such as one of 10.0.0.0/8")
    for name, other in others:
        if network.overlaps(ipaddress.IPv4Network(other)):
            raise invalid("cidr", f"{cidr} overlaps {other} of subnet {name}; choose a range that is free {domain}")
    if not gateway:
        return str(network[1])
    address = ipaddress.IPv4Address(gateway)
    if address not in network or address in (network.network_address, network.broadcast_address):
        raise invalid("gateway", f"{gateway} is not a host address of {cidr}")
    return gateway


def reserved_range(network: Network) -> str:
    """The first range reserved from instances that a network overlaps, with the reason; empty if there is none."""
    for other, reason in _NOT_FOR_HOSTS:
        if network.overlaps(other):
            return f"{other}, which {reason}"
    return ""


def check_address(address: str, cidr: str, gateway: str) -> None:
    """Raises Refusal unless an instance can have the address in the subnet."""
    network, wanted = ipaddress.IPv4Network(cidr), ipaddress.IPv4Address(address)
    if wanted not in network or wanted in (network.network_address, network.broadcast_address):
        raise invalid("address", f"{address} is not a host address of {cidr}")
    if address == gateway:
        raise invalid("address", f"{address} is the subnet's gateway")


def free_address(cidr: str, gateway: str, taken: Collection[str]) -> str:
    """The lowest free host address of a subnet. Raises Refusal NO_ADDRESS when there is none."""
    network = ipaddress.IPv4Network(cidr)
    used = {int(ipaddress.IPv4Address(address)) for address in (*taken, gateway)}
    for candidate in range(int(network.network_address) + 1, int(network.broadcast_address)):
        if candidate not in used:
            return str(ipaddress.IPv4Address(candidate))
    raise Refusal("NO_ADDRESS", f"subnet {cidr} has no free address; delete an adapter or add a subnet")


def check_mac(mac: str, vnets: Mapping[str, str], hosts: Mapping[str, str]) -> None:
    """Raises Refusal if the platform itself uses a hardware address on one of the vnets (id -> name) or hosts."""
    owner = find_mac_owner(mac, vnets, hosts)
    if owner:
        raise invalid("mac", f"{mac} is {owner}; choose another, or leave it out for one")


def mac_of(random_bytes: bytes) -> str:
    """A hardware address made of three random bytes; only the database can tell whether it is free."""
    return ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in random_bytes)])
