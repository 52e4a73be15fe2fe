"""What is on the machine that `make down` must leave as it was: `make leftovers` compares."""

import json
import re
import subprocess
from pathlib import Path

from deploy.demo import services
from deploy.demo.layout import Layout
from kowa import files

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

# Everybody writes here; it is looked at only.
SHARED = "/tmp"  # noqa: S108

# What the demo, or a program that it starts, may have made, by its name. Other things appear on a machine meanwhile,
# too: mount(8) makes /run/mount, sudo /run/sudo, a container runtime its own devices.
_NAMED_BY_US = r"(kowa|kahuna|kaktus|kiwi)"
MADE_BY_US = {
    "devices": r"k[btm][0-9a-f]{12}|virbr\d+(-nic)?|vnet\d+|macvtap\d+",
    "namespaces": rf"{_NAMED_BY_US}.*",
    "mounts": r"(/run|/etc|/var/lib|/var/log|/var/cache)/libvirt(/.*)?",
    "tables": rf"table \w+ {_NAMED_BY_US}.*",
    "files": rf"(/etc/libvirt/qemu|/run/libvirt|/var/(lib|log|cache)/libvirt)/.*"
    rf"|/run/(libvirt|qemu|envoy).*|(/run|/run/netns|/tmp)/{_NAMED_BY_US}.*",
}

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
            *map(str, Path(SHARED).iterdir()),
        ],
    }
    return {kind: sorted(entries) for kind, entries in found.items()}


def remember(layout: Layout) -> None:
    """Keeps what is there before the demo's first start."""
    if not layout.before.exists():
        files.write(layout.before, json.dumps(inventory(), indent=1).encode(), mode=0o644)


def compare(layout: Layout) -> list[str]:
    """What is left of the demo: what `left` finds, other checkouts' apart, and processes. A line each."""
    if not layout.before.exists():
        return []
    others = services.objects_of_other_checkouts(layout)
    theirs = {
        "devices": [device for other in others for device in other.devices],
        "tables": [table for other in others for table in other.tables],
    }
    running = [f"process: {daemon.name} {pid}" for daemon in services.all_daemons(layout) for pid in daemon.pids()]
    return [*left(json.loads(layout.before.read_text()), inventory(), theirs, layout.checkout), *running]


def left(before: Inventory, after: Inventory, theirs: Inventory, checkout: Path) -> list[str]:
    """What is there now, was not before, is not theirs and bears a name that the demo gives; or is mounted in it."""

    def is_ours(kind: str, entry: str) -> bool:
        return bool(re.fullmatch(MADE_BY_US[kind], entry)) or (kind == "mounts" and checkout in Path(entry).parents)

    return [
        f"{kind}: {entry}"
        for kind, entries in after.items()
        for entry in entries
        if entry not in (*before.get(kind, ()), *theirs.get(kind, ())) and is_ours(kind, entry)
    ]


def _json(*command: str) -> list[dict[str, str]]:
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    found: list[dict[str, str]] = json.loads(said or "[]")
    return [entry for entry in found if entry]


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
