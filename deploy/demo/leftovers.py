"""What is on the machine that `make down` must leave as it was: `make leftovers` compares."""

import json
import subprocess
from pathlib import Path

from deploy.demo import site
from deploy.demo.house import House, write_whole

# Where programs of ours could leave files outside the checkout.
FOLDERS = (
    "/run",
    "/run/libvirt",
    "/run/netns",
    "/etc/libvirt/qemu",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
)

# Everybody writes here; what is ours has a name of ours.
SHARED, OURS = "/tmp", ("kow", "kah", "kak", "kiw")  # noqa: S108 - looked at only

Inventory = dict[str, list[str]]


def inventory() -> Inventory:
    """Devices, namespaces, mounts, nftables tables and files, sorted."""
    found = {
        "devices": [link["ifname"] for link in _json("ip", "-j", "link")],
        "namespaces": [namespace["name"] for namespace in _json("ip", "-j", "netns")],
        "mounts": [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()],
        "tables": _lines("nft", "list", "tables"),
        "files": [
            *(str(path) for folder in FOLDERS if Path(folder).is_dir() for path in Path(folder).iterdir()),
            *(str(path) for path in Path(SHARED).iterdir() if path.name.startswith(OURS)),
        ],
    }
    return {kind: sorted(entries) for kind, entries in found.items()}


def remember(house: House) -> None:
    """Keeps what is there before the demo's first start."""
    if not house.before.exists():
        write_whole(house.before, json.dumps(inventory(), indent=1))


def compare(house: House) -> list[str]:
    """What is there now, was not before and is no other demo's; and the demo's processes. A line each."""
    if not house.before.exists():
        return []
    before: Inventory = json.loads(house.before.read_text())
    after = inventory()
    others = site.neighbours(house)
    expected = {
        **before,
        "devices": [*before["devices"], *(device for other in others for device in other.devices)],
        "tables": [*before["tables"], *(table for other in others for table in other.tables)],
    }
    more = [f"{kind}: {entry}" for kind in before for entry in after[kind] if entry not in expected[kind]]
    running = [f"process: {daemon.name} {pid}" for daemon in site.all_daemons(house) for pid in daemon.pids()]
    return [*more, *running]


def _json(*command: str) -> list[dict[str, str]]:
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    found: list[dict[str, str]] = json.loads(said or "[]")
    return [entry for entry in found if entry]


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
