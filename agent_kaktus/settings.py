"""The agent's settings: environment variables `KAKTUS_...`, and a TOML file whose values they override."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from kowa.runtime.settings import AgentSettings


class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's settings, and where it keeps what belongs to instances."""

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

    @property
    def instances(self) -> Path:
        """A directory with one for each instance: its seed and its console log."""
        return self.machines or self.pools.parent / "machines"

    def seed(self, instance: str) -> Path:
        return self.instances / instance / "seed.iso"

    def console(self, instance: str) -> Path:
        return self.instances / instance / "console.log"
