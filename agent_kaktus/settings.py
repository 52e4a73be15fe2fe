"""The agent's settings: environment variables `KAKTUS_...`, and a TOML file whose values they override."""

from importlib.metadata import version
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from agent_kaktus.config import HostConfig
from agent_kaktus.storage.address import Allowed
from agent_kaktus.storage.source import Sources
from kowa import sources
from kowa.runtime.settings import AgentSettings

Network = IPv4Network | IPv6Network


class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's settings."""

    prefix = "KAKTUS_"

    pools: Path  # a directory in which each dir pool has one, named by the pool's id
    machines: Path | None = None  # seeds and console logs; unless set, `machines` beside the pools
    libvirt_uri: str = "qemu:///system"
    accelerator: Literal["kvm", "qemu"] = "kvm"
    machine_type: str = "pc-i440fx-7.2"  # versioned, so that an instance keeps its hardware
    tcg_cache_mib: Annotated[int, Meta(ge=8)] = 64  # QEMU's translation cache, where nothing accelerates
    import_dir: Path | None = None  # templates named by file come from here, and from nowhere else
    import_hosts: tuple[str, ...] = ()  # private hosts and networks that templates may come from
    # The bridge has each subnet's gateway address; what the host serves on all of its addresses then answers guests.
    hold_gateway: bool = False
    metadata_route: bool = True  # seeds tell instances that the metadata service is on their link
    shutdown_limit: Annotated[float, Meta(gt=0)] = 60.0  # seconds until an instance that does not shut down is cut off

    @property
    def version(self) -> str:
        """Of the program."""
        return version("kowa")

    def sources(self) -> Sources:
        """What templates may come from."""
        return Sources(self.import_dir, Allowed(self.allowed_names(), self.allowed_networks()))

    def host_config(self) -> HostConfig:
        return HostConfig(
            version=self.version,
            pools=self.pools.absolute(),
            instances=(self.machines or self.pools.parent / "machines").absolute(),
            accelerator=self.accelerator,
            machine_type=self.machine_type,
            tcg_cache_mib=self.tcg_cache_mib,
            hold_gateway=self.hold_gateway,
            metadata_route=self.metadata_route,
            shutdown_limit=self.shutdown_limit,
        )

    def allowed_names(self) -> frozenset[str]:
        return frozenset(_name(host) for host in self.import_hosts if _network(host) is None)

    def allowed_networks(self) -> tuple[Network, ...]:
        return tuple(network for host in self.import_hosts if (network := _network(host)) is not None)


def _network(text: str) -> Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _name(host: str) -> str:
    """As hosts of sources are written; what can't be one names none."""
    try:
        return sources.parse_host(host)
    except ValueError:
        return host.lower()
