"""What an operator tells the agent: environment variables `KAKTUS_...`, and a TOML file whose values they override."""

from importlib.metadata import version
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from agent_kaktus.site import Site
from agent_kaktus.storage.address import Allowed
from agent_kaktus.storage.source import Sources
from agent_kaktus.told import Told
from kowa import sources
from kowa.runtime.settings import AgentSettings

Network = IPv4Network | IPv6Network


class Settings(AgentSettings):
    """The agent's settings."""

    model_config = SettingsConfigDict(env_prefix="KAKTUS_", extra="forbid")

    pools: Path = Field(description="a directory in which each dir pool has one, named by the pool's id")
    machines: Path | None = Field(
        default=None, description="seeds and console logs; unless told, `machines` beside the pools"
    )
    libvirt_uri: str = "qemu:///system"
    accelerator: Literal["kvm", "qemu"] = "kvm"
    machine_type: str = Field(default="pc-i440fx-7.2", description="versioned, so that a machine keeps its hardware")
    tcg_cache_mib: int = Field(default=64, ge=8, description="QEMU's translation cache, where nothing accelerates")
    import_dir: Path | None = Field(
        default=None, description="templates named by file come from here, and from nowhere else"
    )
    import_hosts: tuple[str, ...] = Field(
        default=(), description="private hosts and networks that templates may come from"
    )
    hold_gateway: bool = Field(
        default=False,
        description="the bridge has each subnet's gateway address; what the host serves on all of its addresses then"
        " answers guests",
    )
    metadata_route: bool = Field(
        default=True, description="seeds tell machines that the metadata service is on their link"
    )
    shutdown_limit: float = Field(
        default=60.0, gt=0, description="seconds until a machine that does not shut down is cut off"
    )

    def told(self) -> Told:
        return Told(
            version=version("kowa"),
            server=self.server,
            ca=self.ca,
            token=self.token,
            state=self.state,
            site=self.site(),
            sources=Sources(self.import_dir, Allowed(self.allowed_names(), self.allowed_networks())),
            libvirt_uri=self.libvirt_uri,
        )

    def site(self) -> Site:
        return Site(
            pools=self.pools.absolute(),
            machines=(self.machines or self.pools.parent / "machines").absolute(),
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
