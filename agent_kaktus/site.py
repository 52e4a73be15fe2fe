"""What is particular to this host, as far as plans depend on it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Site:
    """Where things lie and how machines are made here."""

    pools: Path
    machines: Path
    accelerator: str = "kvm"
    machine_type: str = "pc-i440fx-7.2"
    tcg_cache_mib: int = 64
    hold_gateway: bool = False
    metadata_route: bool = True
    shutdown_limit: float = 60.0

    def volume(self, pool: str, volume: str) -> Path:
        return self.pools / pool / f"{volume}.qcow2"

    def seed(self, machine: str) -> Path:
        return self.machines / machine / "seed.iso"

    def console(self, machine: str) -> Path:
        return self.machines / machine / "console.log"
