"""Sources of templates: files in the import folder, and web servers with an allowed address."""

import os
import stat
from collections.abc import AsyncGenerator, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from kowa import sources
from kowa.runtime.errors import PermanentFailure
from kowa.runtime.tasks import in_thread

Address = IPv4Address | IPv6Address

CHUNK_BYTES = 1 << 18  # read at once; larger chunks make malloc keep megabytes after the read
_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = (ip_network("2000::/3"), _NAT64)  # is_global allows more, that may map to internal hosts


class Sources:
    """The sources that the operator allows: a folder, public web servers, and private ones by name or network."""

    def __init__(self, folder: Path | None = None, hosts: Iterable[str] = ()) -> None:
        """`hosts` are names, addresses and networks; anything that does not parse as a network is a host name."""
        self._folder = folder
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for host in hosts:
            try:
                self._networks.append(ip_network(host, strict=False))
            except ValueError:
                self._names.add(_host_name(host))

    def read(self, source: str) -> AsyncGenerator[tuple[bytes, int]]:
        """Yields a source in chunks, each with the size of the whole (0: not known). Raises PermanentFailure."""
        try:
            parsed = sources.parse(source)
        except ValueError as error:
            raise PermanentFailure(f"the source {error}") from error
        if "://" not in parsed:
            return self._read_file(parsed)
        from agent_kaktus.storage.web import fetch  # imported here: few agents need it and it costs memory

        return fetch(parsed, self.choose_address)

    def choose_address(self, host: str, found: Iterable[str]) -> str:
        """Chooses the address to connect to from those that a host name resolves to.

        Raises PermanentFailure unless all are allowed: a name with public and private addresses is refused.
        """
        addresses = [ip_address(text.split("%", 1)[0]) for text in found]
        if not addresses:
            raise PermanentFailure(f"{host} has no address")
        for address in addresses:
            if host.lower() not in self._names and not self._is_allowed(address):
                reason = "which is no public address; an operator may allow it with import_hosts"
                raise PermanentFailure(f"{host} leads to {address}, {reason}")
        return str(addresses[0])

    def _is_allowed(self, address: Address) -> bool:
        both = (address, _embedded_ipv4(address))
        is_in_allowed_network = any(each in network for network in self._networks for each in both)
        return is_in_allowed_network or all(_is_public(each) for each in both)

    async def _read_file(self, name: str) -> AsyncGenerator[tuple[bytes, int]]:
        descriptor = self._open(name)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            while chunk := await in_thread(file.read)(CHUNK_BYTES):
                yield chunk, size

    def _open(self, name: str) -> int:
        """Opens a file after all symbolic links are resolved, only if the result is in the folder."""
        if self._folder is None:
            raise PermanentFailure("this host has no import folder; an operator sets import_dir")
        try:
            folder = self._folder.resolve(strict=True)
            path = (folder / name).resolve(strict=True)
            if path.parent != folder:
                raise PermanentFailure(f"{name} leads out of the import folder")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            reason = f"the import folder {self._folder} has no readable file {name}: {error.strerror}"
            raise PermanentFailure(reason) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise PermanentFailure(f"{name} in the import folder is not a file")
        return descriptor


def _is_public(address: Address) -> bool:
    in_global_range = address.version == 4 or any(address in network for network in _GLOBAL_IPV6)
    return in_global_range and address.is_global and not address.is_multicast


def _embedded_ipv4(address: Address) -> Address:
    """The IPv4 address that an IPv6 address contains; any other address unchanged."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _host_name(text: str) -> str:
    """The host name as source URLs spell it; invalid text is lower-cased and matches nothing."""
    try:
        return sources.parse_host(text)
    except ValueError:
        return text.lower()
