"""The guest's root file system, which is its initrd."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from deploy.guest.archive import Archive
from deploy.guest.modules import load_order

HERE = Path(__file__).parent
LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"

BEFORE_READY = ("virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "sr_mod", "isofs", "button", "evdev")
AFTER_READY = ("pvpanic_mmio", "sd_mod", "virtio_balloon", "virtio_console", "virtio_rng")


def make(tree: Path) -> bytes:
    """Builds the initrd from packages unpacked below `tree`."""
    root = Archive()
    for name in (".", "proc", "sys", "dev", "run", "seed"):
        root.directory(name)
    root.directory("tmp", 0o1777)
    root.directory("root/.ssh", 0o700)
    root.directory("root", 0o700)
    root.device("dev/console", 5, 1)
    _scripts(root)
    _busybox(root, tree)
    _dropbear(root, tree)
    _modules(root, tree)
    return root.compressed()


def _scripts(root: Archive) -> None:
    root.program("sbin/boot-client", HERE / "boot-client")
    files = HERE / "root"
    for file in sorted(path for path in files.rglob("*") if path.is_file()):
        name = str(file.relative_to(files))
        if file.read_bytes().startswith(b"#!"):
            root.program(name, file)
        else:
            root.file(name, file)


def _busybox(root: Archive, tree: Path) -> None:
    busybox = tree / "bin/busybox"
    root.program("bin/busybox", busybox)
    for applet in _output([busybox, "--list"]).split():
        if applet != "busybox":
            root.link(f"bin/{applet}", "busybox")
    root.link("init", "bin/busybox")


def _dropbear(root: Archive, tree: Path) -> None:
    """Adds the SSH server with the libraries of its own Debian release, which may differ from this machine's."""
    program = tree / "usr/sbin/dropbear"
    root.program("sbin/dropbear", program)
    root.directory("etc/dropbear", 0o700)
    root.program("lib64/ld-linux-x86-64.so.2", tree / LOADER)
    folders = ":".join(str(tree / folder) for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    listing = _output([tree / LOADER, "--library-path", folders, "--list", program])
    for name, file in re.findall(r"^\s*(\S+) => (\S+) ", listing, re.MULTILINE):
        root.file(f"lib/{name}", Path(file))


def _modules(root: Archive, tree: Path) -> None:
    first = load_order(tree / "lib/modules", BEFORE_READY)
    later = [file for file in load_order(tree / "lib/modules", AFTER_READY) if file not in first]
    for module in (*first, *later):
        root.file(f"lib/modules/{module.name}", module)
    root.file("lib/modules/before-ready", _lines(first))
    root.file("lib/modules/after-ready", _lines(later))


def _lines(files: list[Path]) -> bytes:
    return "".join(f"/lib/modules/{file.name}\n" for file in files).encode()


def _output(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
