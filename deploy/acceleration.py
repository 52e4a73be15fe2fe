"""Tests whether guests run under KVM: `python -m deploy.acceleration --guest DIR --cache FILE` prints `kvm` or `qemu`.

That /dev/kvm opens, and even that QEMU reports KVM, proves nothing: under some hypervisors every usual kernel dies in
it, at once or after its first lines. So the guest itself is booted; KVM works if its boot client prints a line. The
answer is cached until this machine reboots.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

BOOT_MARKER = b"kowabunga: "
TRIAL_TIMEOUT_S = 5.0
"""In which a guest must have printed its first line; emulated it takes two seconds, under KVM less than one."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DEVICE = Path("/dev/kvm")


def acceleration(guest: Path, cache: Path) -> str:
    """`kvm` or `qemu`, as libvirt names the type of a domain. `guest` is the folder of vmlinuz and initrd.gz."""
    boot = BOOT_ID.read_text().strip()
    known = _read_cache(cache, boot)
    if known is None:
        known = "kvm" if _opens(DEVICE) and guest_boots(guest) else "qemu"
        _write_cache(cache, boot, known)
    return known


def guest_boots(guest: Path) -> bool:
    """Whether the guest boots under KVM within TRIAL_TIMEOUT_S."""
    files = ["-kernel", str(guest / "vmlinuz"), "-initrd", str(guest / "initrd.gz")]
    machine = ["-machine", "pc,accel=kvm", "-cpu", "host", "-m", "128", "-nodefaults", "-no-reboot", "-display", "none"]
    console = ["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"]
    command = ["qemu-system-x86_64", *machine, *files, *console]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as qemu:
        timer = threading.Timer(TRIAL_TIMEOUT_S, qemu.kill)
        timer.start()
        try:
            assert qemu.stdout is not None
            return any(BOOT_MARKER in line for line in qemu.stdout)
        finally:
            timer.cancel()
            qemu.kill()


def _opens(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return False
    return True


def _read_cache(cache: Path, boot: str) -> str | None:
    try:
        cached = json.loads(cache.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return cached.get("acceleration") if cached.get("boot") == boot else None


def _write_cache(cache: Path, boot: str, answer: str) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    draft = cache.with_name(f"{cache.name}.{os.getpid()}")
    draft.write_text(json.dumps({"boot": boot, "acceleration": answer}))
    draft.replace(cache)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.acceleration", description="Print kvm or qemu.")
    parser.add_argument("--guest", type=Path, required=True, help="directory with vmlinuz and initrd.gz")
    parser.add_argument("--cache", type=Path, required=True, help="file that keeps the answer")
    options = parser.parse_args()
    if not (options.guest / "vmlinuz").exists():
        sys.exit(f"acceleration: no vmlinuz in {options.guest}; python -m deploy.guest.build makes it")
    print(acceleration(options.guest, options.cache))


if __name__ == "__main__":
    main()
