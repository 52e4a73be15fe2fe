"""A disk that a BIOS boots: syslinux, kernel and initrd in a FAT partition, the root behind it. No loop device."""

import os
import shutil
import subprocess
from pathlib import Path

SIZE = 1536 << 20
BOOT_AT, ROOT_AT = 1 << 20, 65 << 20  # bytes
BOOT_RECORD = Path("/usr/lib/syslinux/mbr/mbr.bin")
_SECTOR = 512
_PARTITIONS = f"{BOOT_AT // _SECTOR},{(ROOT_AT - BOOT_AT) // _SECTOR},6,*\n{ROOT_AT // _SECTOR},,83\n"
_MENU = """\
DEFAULT debian
PROMPT 0
TIMEOUT 0
LABEL debian
 KERNEL vmlinuz
 INITRD initrd.img
 APPEND root=/dev/vda2 ro console=ttyS0 quiet systemd.show_status=false mitigations=off nokaslr
"""


def make(work: Path, root: Path) -> Path:
    """The image in `work`. Raises CalledProcessError with the tool that failed."""
    raw, image = work / "disk.raw", work / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(SIZE)
    (work / "syslinux.cfg").write_text(_MENU)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(next((root / "boot").glob(f"{name}-*")), work / name)
    _run(work, "sfdisk", "--quiet", raw.name, stdin=_PARTITIONS)
    kib = (ROOT_AT - BOOT_AT) // 1024
    _run(work, "mkfs.vfat", "-F", "16", "--offset", str(BOOT_AT // _SECTOR), raw.name, str(kib))
    _run(work, "mcopy", "-i", f"{raw.name}@@{BOOT_AT}", "vmlinuz", "initrd.img", "syslinux.cfg", "::/")
    _run(work, "syslinux", "--install", "--offset", str(BOOT_AT), raw.name)
    size = f"{(SIZE - ROOT_AT) // 1024}k"
    _run(work, "mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), "-E", f"offset={ROOT_AT}", raw.name, size)
    with raw.open("r+b") as file:
        file.write(BOOT_RECORD.read_bytes()[:440])
    _run(work, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw.name, image.name)
    return image


def _run(work: Path, *command: str, stdin: str = "") -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path, "MTOOLS_SKIP_CHECK": "1"}
    subprocess.run(
        command, cwd=work, env=environment, check=True, input=stdin, text=True, stdout=subprocess.DEVNULL, timeout=120
    )
