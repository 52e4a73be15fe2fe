"""How this host is set up, as far as plans and steps depend on it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Where files lie and how instances run here."""

    pools: Path  # a directory with one for each dir pool
    instances: Path  # a directory with one for each instance: its seed and its console log
    accelerator: str = "kvm"
    machine_type: str = "pc-i440fx-7.2"
    tcg_cache_mib: int = 64
    hold_gateway: bool = False
    metadata_route: bool = True
    shutdown_limit: float = 60.0  # seconds

    def seed(self, instance: str) -> Path:
        return self.instances / instance / "seed.iso"

    def console(self, instance: str) -> Path:
        return self.instances / instance / "console.log"
