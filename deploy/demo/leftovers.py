"""`make leftovers`: compares devices, mounts, tables and files of the machine with those before the demo's start."""

import json
import re
import subprocess
from pathlib import Path

from deploy.demo import services
from deploy.demo.layout import Layout
from kowa import files

# Folders outside the checkout in which our programs could leave files.
FOLDERS = (
    "/run",
    "/run/libvirt",
    "/run/netns",
    "/etc/libvirt/qemu",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
)

# All users write here; it is only listed.
SHARED = "/tmp"  # noqa: S108

# The names of objects that the demo, or a program that it starts, may have created. Other programs create some
# meanwhile, too: mount(8) makes /run/mount, sudo /run/sudo, a container runtime its own devices.
_PROGRAM_NAMES = r"(kowa|kahuna|kaktus|kiwi)"
NAMES = {
    "devices": r"k[btm][0-9a-f]{12}|virbr\d+(-nic)?|vnet\d+|macvtap\d+",
    "namespaces": rf"{_PROGRAM_NAMES}.*",
    "mounts": r"(/run|/etc|/var/lib|/var/log|/var/cache)/libvirt(/.*)?",
    "tables": rf"table \w+ {_PROGRAM_NAMES}.*",
    "files": rf"(/etc/libvirt/qemu|/run/libvirt|/var/(lib|log|cache)/libvirt)/.*"
    rf"|/run/(libvirt|qemu|envoy).*|(/run|/run/netns|/tmp)/{_PROGRAM_NAMES}.*",
}

Inventory = dict[str, list[str]]


def inventory() -> Inventory:
    """The devices, namespaces, mounts, nftables tables and files of this machine, sorted."""
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
    """Stores the inventory from before the demo's first start."""
    if not layout.before.exists():
        files.write(layout.before, json.dumps(inventory(), indent=1).encode(), mode=0o644)


def compare(layout: Layout) -> list[str]:
    """What is left of the demo, a line each: objects that `left` finds, without other checkouts', and processes."""
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
    """Objects that exist now, did not before, are not `theirs`, and have a name of ours or are mounts in the demo."""

    def is_ours(kind: str, entry: str) -> bool:
        return bool(re.fullmatch(NAMES[kind], entry)) or (kind == "mounts" and checkout in Path(entry).parents)

    return [
        f"{kind}: {entry}"
        for kind, entries in after.items()
        for entry in entries
        if entry not in (*before.get(kind, ()), *theirs.get(kind, ())) and is_ours(kind, entry)
    ]


def _json(*command: str) -> list[dict[str, str]]:
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    found: list[dict[str, str]] = json.loads(output or "[]")
    return [entry for entry in found if entry]


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
