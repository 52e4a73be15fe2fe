"""Disk images: reads and checks their headers, and creates and resizes them with qemu-img."""

import json
import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent_kaktus import process
from agent_kaktus.actual import Image
from kowa.runtime.errors import PermanentFailure, StepFailed
from kowa.runtime.tasks import in_thread

MAX_SIZE_BYTES = 16 << 40  # of a template, as its header states
SECTOR = 512
_MAGIC = b"QFI\xfb"
# Magic, version, backing name's offset and length, cluster bits, size, encryption, (L1 and refcount tables), number of
# snapshots, (their table), incompatible features.
_HEADER = struct.Struct(">4sIQIIQI24xI8xQ")
_CORRUPT, _EXTERNAL_DATA = 1 << 1, 1 << 2
_ENCRYPTIONS = {1: " (AES)", 2: " (LUKS)"}
_MAX_NAME_BYTES = 1023  # of its backing file
_TEXT = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 0x100))
_CONVERT = "convert it with `qemu-img convert -O qcow2 OLD NEW`"
_DECRYPT = "decrypt it with `qemu-img convert`, which takes its key as --object secret"
# Formats that are not imported: offset and bytes of their signature, description, remedy.
_OTHER_FORMATS = (
    (0, b"KDMV", "is a VMware disk (vmdk)", _CONVERT),
    (0, b"# Disk DescriptorFile", "describes a VMware disk (vmdk)", "convert the disk with `qemu-img convert`"),
    (0, b"vhdxfile", "is a Hyper-V disk (vhdx)", _CONVERT),
    (0, b"conectix", "is a Virtual PC disk (vhd)", _CONVERT),
    (64, b"\x7f\x10\xda\xbe", "is a VirtualBox disk (vdi)", _CONVERT),
    (0, b"QED\0", "is a QED disk", _CONVERT),
    (0, b"WithoutFreeSpace", "is a Parallels disk", _CONVERT),
    (0, b"WithouFreSpacExt", "is a Parallels disk", _CONVERT),
    (0, b"LUKS\xba\xbe", "is an encrypted disk (LUKS)", _DECRYPT),
    (0, b"\x1f\x8b", "is compressed (gzip)", "unpack it"),
    (0, b"\xfd7zXZ\0", "is compressed (xz)", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed (zstd)", "unpack it"),
    (0, b"BZh", "is compressed (bzip2)", "unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "is an archive (7z)", "unpack it"),
    (0, b"PK\3\4", "is an archive (zip)", "unpack it"),
    (257, b"ustar", "is an archive (tar, such as an OVA)", "unpack it"),
    (32769, b"CD001", "is a CD (ISO 9660)", "take the image of an installed disk, such as a cloud image"),
)
_START_BYTES = 33 << 10  # contains the signatures of all of them
_BOOT_SIGNATURE = b"\x55\xaa"
_LINKED = "the image refers to another file; flatten it with `qemu-img convert`"
_MAX_MEMORY_BYTES = 1 << 30  # address space, of which a valid image needs a quarter
_MAX_CPU_SECONDS = 30


class BadImage(Exception):
    """A file is not a disk image that can be imported. The text, such as `is compressed (gzip)`, tells what it is."""


@dataclass(frozen=True, slots=True)
class Header:
    size: int
    backing: str
    features: int
    snapshots: int


def read_header(path: Path) -> Header:
    """Reads a qcow2 header itself: qemu-img is slow for many images and can't read one that QEMU has open."""
    with path.open("rb") as file:
        start = os.pread(file.fileno(), _HEADER.size, 0)
        if len(start) < _HEADER.size or not start.startswith(_MAGIC):
            raise BadImage("is not a qcow2 image")
        _, version, offset, length, _, size, encryption, snapshots, features = _HEADER.unpack(start)
        if version == 1:
            raise BadImage(f"is a qcow disk of version 1; {_CONVERT}")
        if version not in (2, 3) or length > _MAX_NAME_BYTES:
            raise BadImage(f"is a damaged qcow2 image, or one of version {version}")
        if encryption:
            raise BadImage(f"is an encrypted qcow2 image{_ENCRYPTIONS.get(encryption, '')}; {_DECRYPT}")
        if offset + length > os.lseek(file.fileno(), 0, os.SEEK_END):
            raise BadImage("is a damaged qcow2 image: its backing file's name lies past the end of the file")
        backing = os.pread(file.fileno(), length, offset).decode(errors="replace") if offset else ""
    return Header(size, backing, features if version == 3 else 0, snapshots)


async def verify(path: Path) -> str:
    """The format of a downloaded image. Raises PermanentFailure if no instance can start from it."""
    try:
        if await in_thread(_is_raw)(path):
            return "raw"
        header = await in_thread(read_header)(path)
    except BadImage as error:
        raise PermanentFailure(f"the source's file {error}") from error
    if header.backing or header.features & _EXTERNAL_DATA:
        raise PermanentFailure(_LINKED)
    if header.features & _CORRUPT:
        raise PermanentFailure("the image is marked as corrupt; repair it with `qemu-img check -r all`")
    try:
        found = json.loads(await _run_limited("info", "--output=json", "-f", "qcow2", str(path)))
        specific = found.get("format-specific", {}).get("data", {})
        if found.get("format") != "qcow2" or "backing-filename" in found or "data-file" in specific:
            raise PermanentFailure(_LINKED)
        _verify_size(int(found["virtual-size"]))
        start = await _first_sector(path)
    except StepFailed as error:
        raise PermanentFailure(f"the image can't be read: {error}") from error
    if not start.endswith(_BOOT_SIGNATURE):
        snapshots = f"; it has {header.snapshots} snapshots; `qemu-img convert -l NAME` makes an image of one"
        reason = "the image has no boot sector, so no machine starts from it"
        raise PermanentFailure(reason + (snapshots if header.snapshots else ""))
    return "qcow2"


def _is_raw(path: Path) -> bool:
    """Whether a file is a raw image and not a qcow2 one. Raises BadImage if it is neither.

    Any data can be a raw image; a bootable one has a signature at the end of its first sector.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(_MAGIC):
        return False
    boots = start[:SECTOR].endswith(_BOOT_SIGNATURE) and len(start) >= SECTOR
    for offset, signature, description, remedy in _OTHER_FORMATS:
        # A hybrid ISO also has a boot sector.
        if start.startswith(signature, offset) and not (boots and offset > SECTOR):
            raise BadImage(f"{description}; {remedy}")
    if boots and size % SECTOR:
        raise BadImage(f"has {size} bytes, no multiple of {SECTOR}: it was cut off")
    if not boots:
        looks = "text" if start and not set(start[:SECTOR]) - _TEXT else "data"
        raise BadImage(f"is {looks}, no disk image: neither qcow2 nor raw with a boot sector")
    _verify_size(size)
    return True


def _verify_size(size: int) -> None:
    if not SECTOR <= size <= MAX_SIZE_BYTES:
        raise PermanentFailure(
            f"the image claims to have {size} bytes; {SECTOR} bytes to {MAX_SIZE_BYTES >> 40} TiB are possible"
        )


async def _first_sector(path: Path) -> bytes:
    """The first sector of the disk that a guest gets: decompressed and mapped as QEMU reads it."""
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder, "start")
        await _run_limited("dd", "-f", "qcow2", "-O", "raw", f"bs={SECTOR}", "count=1", f"if={path}", f"of={start}")
        return await in_thread(start.read_bytes)()


async def _run_limited(*arguments: str) -> str:
    """Runs qemu-img on an untrusted image, which may be crafted to exhaust the host's memory or processors."""
    limits = (f"--as={_MAX_MEMORY_BYTES}", f"--cpu={_MAX_CPU_SECONDS}", "--core=0")
    return await process.run("prlimit", *limits, "qemu-img", *arguments)


async def create(path: Path, size: int, backing: Image | None = None) -> None:
    """Creates a thin image, on a backing image of the same directory if one is given."""
    base = ("-b", backing.file, "-F", backing.format) if backing else ()
    await process.run("qemu-img", "create", "-q", "-f", "qcow2", *base, str(path), str(size))


async def resize(path: Path, size: int) -> None:
    await process.run("qemu-img", "resize", "-q", "-f", "qcow2", str(path), str(size))
