"""The agent's settings: environment variables `KAKTUS_...`, and a TOML file whose values they override."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from kowa.runtime.settings import AgentSettings


class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's settings, and the paths of instances' files."""

    agent = "kaktus"

    pools: Path  # a directory with a subdirectory for each dir pool, named by the pool's id
    machines: Path | None = None  # seeds and console logs; default: `machines` next to the pools
    libvirt_uri: str = "qemu:///system"
    accelerator: Literal["kvm", "qemu"] = "kvm"
    machine_type: str = "pc-i440fx-7.2"  # versioned, so that an instance keeps its hardware
    tcg_cache_mib: Annotated[int, Meta(ge=8)] = 64  # QEMU's translation cache under emulation
    import_dir: Path | None = None  # the only folder that templates named by file come from
    import_hosts: tuple[str, ...] = ()  # private hosts and networks that templates may come from
    # The bridge gets each subnet's gateway address; guests then reach services that listen on all of its addresses.
    hold_gateway: bool = False
    metadata_route: bool = True  # seeds tell instances that the metadata service is on their link
    shutdown_limit: Annotated[float, Meta(gt=0)] = 60.0  # seconds; then an instance that has not shut down is cut off

    @property
    def instances(self) -> Path:
        """A directory with a subdirectory for each instance: its seed and its console log."""
        return self.machines or self.pools.parent / "machines"

    def seed(self, instance: str) -> Path:
        return self.instances / instance / "seed.iso"

    def console(self, instance: str) -> Path:
        return self.instances / instance / "console.log"
