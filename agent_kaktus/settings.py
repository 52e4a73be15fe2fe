"""The agent's settings: environment variables `KAKTUS_...`, and a TOML file whose values they override."""

import dataclasses
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent_kaktus.config import HostConfig
from agent_kaktus.storage.source import Allowed, Network, Sources
from kowa import sources
from kowa.runtime.settings import AgentSettings


class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's settings."""

    agent = "kaktus"

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

    def host_config(self) -> HostConfig:
        """What plans and steps depend on."""
        instances = self.machines or self.pools.parent / "machines"
        values = msgspec.structs.asdict(self) | {"pools": self.pools.absolute(), "instances": instances.absolute()}
        return HostConfig(**{field.name: values[field.name] for field in dataclasses.fields(HostConfig)})

    def sources(self) -> Sources:
        """What templates may come from."""
        host_names: set[str] = set()
        networks: list[Network] = []
        for host in self.import_hosts:
            try:
                networks.append(ip_network(host, strict=False))
            except ValueError:
                host_names.add(_host_name(host))
        return Sources(self.import_dir, Allowed(frozenset(host_names), tuple(networks)))


def _host_name(text: str) -> str:
    """As hosts of sources are written; what can't be one names none."""
    try:
        return sources.parse_host(text)
    except ValueError:
        return text.lower()
