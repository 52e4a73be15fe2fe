"""Where a template may be fetched from: public addresses, and private ones the operator has named."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = (ip_network("2000::/3"), _NAT64)  # Python's is_global also takes addresses that may lead inside


@dataclass(frozen=True, slots=True)
class Allowed:
    """Private host names and networks that the operator lets templates be fetched from."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()


def choose(host: str, found: Iterable[str], allowed: Allowed) -> str:
    """The address to connect to. Raises ValueError when one of them is not to be reached from here.

    Every address must be allowed: a name that resolves to public and private ones is refused.
    """
    addresses = [ip_address(text.split("%", 1)[0]) for text in found]
    if not addresses:
        raise ValueError(f"{host} has no address")
    for address in addresses:
        if host.lower() not in allowed.names and not _is_fit(address, allowed.networks):
            raise ValueError(
                f"{host} leads to {address}, which is no public address; an operator may allow it with import_hosts"
            )
    return str(addresses[0])


def _is_fit(address: Address, networks: Iterable[Network]) -> bool:
    meant = _embedded_ipv4(address)
    if any(each in network for network in networks for each in (address, meant)):
        return True
    return all(_is_public(each) for each in (address, meant))


def _is_public(address: Address) -> bool:
    in_global_range = address.version == 4 or any(address in network for network in _GLOBAL_IPV6)
    return in_global_range and address.is_global and not address.is_multicast


def _embedded_ipv4(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
