"""A disk that a BIOS boots: a FAT partition with syslinux, kernel and initrd. Needs neither root nor a loop device."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SIZE = 32 << 20
PARTITION_OFFSET = 1 << 20
"""The start of the partition, in bytes."""

BOOT_RECORD = Path("/usr/lib/syslinux/mbr/mbr.bin")
KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=1 mitigations=off nokaslr"
SYSLINUX_CONFIG = f"""\
DEFAULT kowa
PROMPT 0
TIMEOUT 0
LABEL kowa
 KERNEL vmlinuz
 INITRD initrd.gz
 APPEND {KERNEL_ARGUMENTS}
"""

REPRODUCIBLE_ENVIRONMENT = {"SOURCE_DATE_EPOCH": "1700000000", "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
"""Makes the tools write the same disk each time."""


def make(work: Path) -> Path:
    """Creates `kowa-guest.qcow2` in `work`, from the `vmlinuz` and `initrd.gz` there.

    Raises CalledProcessError with the tool that failed, FileNotFoundError for one that is not installed.
    """
    raw, disk = work / "kowa-guest.raw", work / "kowa-guest.qcow2"
    with raw.open("wb") as file:
        file.truncate(SIZE)
    (work / "syslinux.cfg").write_text(SYSLINUX_CONFIG)
    _run(work, "sfdisk", "--quiet", raw.name, stdin="label-id: 0x6b6f7761\n2048,,6,*\n")
    sectors = (SIZE - PARTITION_OFFSET) // 1024
    _run(work, "mkfs.vfat", "--invariant", "-F", "16", "-n", "KOWA", "--offset", "2048", raw.name, str(sectors))
    _run(work, "mcopy", "-i", f"{raw.name}@@{PARTITION_OFFSET}", "vmlinuz", "initrd.gz", "syslinux.cfg", "::/")
    _run(work, "syslinux", "--install", "--offset", str(PARTITION_OFFSET), raw.name)
    with raw.open("r+b") as file:
        file.write(BOOT_RECORD.read_bytes()[:440])
    _run(work, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.name, disk.name)
    raw.unlink()
    return disk


def _run(work: Path, *command: str, stdin: str = "") -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    environment = {**os.environ, **REPRODUCIBLE_ENVIRONMENT, "PATH": path}
    subprocess.run(
        command, cwd=work, env=environment, check=True, input=stdin, text=True, stdout=subprocess.DEVNULL, timeout=60
    )
