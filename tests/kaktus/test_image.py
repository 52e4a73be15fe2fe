"""Image files that become templates, and those that are refused because no instance starts from them."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from agent_kaktus.storage import image
from kowa.runtime.errors import PermanentFailure

from .slices import MIB

BOOTS = b"\x00" * 510 + b"\x55\xaa" + bytes(MIB)
KEY = "--object secret,id=k,data=secret"
LUKS = "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10"
AES = "encrypt.format=aes,encrypt.key-secret=k"
REFUSED = [
    # command that creates file d | part of the reason
    ("qemu-img create -f vmdk d 1M", "is a VMware disk (vmdk); convert it with `qemu-img convert -O qcow2"),
    ("qemu-img create -f vmdk -o subformat=monolithicFlat d 1M", "describes a VMware disk (vmdk); convert the disk"),
    ("qemu-img create -f vhdx d 1M", "is a Hyper-V disk (vhdx); convert it"),
    ("qemu-img create -f vpc d 1M", "is a Virtual PC disk (vhd); convert it"),
    ("qemu-img create -f vdi d 1M", "is a VirtualBox disk (vdi); convert it"),
    ("qemu-img create -f qed d 1M", "is a QED disk; convert it"),
    ("qemu-img create -f qcow d 1M", "is a qcow disk of version 1; convert it"),
    ("qemu-img create -f parallels d 1M", "is a Parallels disk; convert it"),
    (f"qemu-img create -f qcow2 {KEY} -o {AES} d 1M", "is an encrypted qcow2 image (AES); decrypt it with `qemu-img"),
    ("printf 'LUKS\\272\\276' > d; truncate -s 1M d", "is an encrypted disk (LUKS); decrypt it"),
    ("qemu-img create -f qcow2 d 0", "claims to have 0 bytes; 512 bytes to 16 TiB are possible"),
    ("qemu-img create -f qcow2 -o cluster_size=2M d 20T", "claims to have 21990232555520 bytes; 512 bytes to 16 TiB"),
    ("qemu-img create -f qcow2 d 1M", "the image has no boot sector, so no machine starts from it"),
    ("qemu-img create -f qcow2 d 1M && qemu-img snapshot -c s d", "it has 1 snapshots; `qemu-img convert -l NAME"),
    ("qemu-img create -f qcow2 -b /etc/passwd -F raw d 1M", "refers to another file; flatten it with `qemu-img"),
    ("qemu-img create -f qcow2 -o data_file=e,data_file_raw=on d 1M", "refers to another file; flatten it"),
    ("truncate -s 40K d && printf CD001 | dd of=d bs=1 seek=32769 conv=notrunc", "is a CD (ISO 9660); take the image"),
    ("echo x | gzip > d", "is compressed (gzip); unpack it"),
    ("echo x | xz > d", "is compressed (xz); unpack it"),
    ("echo x | bzip2 > d", "is compressed (bzip2); unpack it"),
    ("printf '\\050\\265\\057\\375xxxx' > d", "is compressed (zstd); unpack it"),
    ("printf 'PK\\003\\004xxxx' > d", "is an archive (zip); unpack it"),
    ("touch x && tar cf d x", "is an archive (tar, such as an OVA); unpack it"),
    ("echo hello > d", "is text, no disk image"),
    ("touch d", "is data, no disk image"),
    ("cp boots d && printf x >> d", "has 1049089 bytes, no multiple of 512: it was cut off"),
]  # fmt: skip
ACCEPTED = [
    ("cp boots d", "raw"),
    (
        "cp boots d && printf CD001 | dd of=d bs=1 seek=32769 conv=notrunc",
        "raw",
    ),  # CD and disk
    ("qemu-img convert -O qcow2 boots d", "qcow2"),
    ("qemu-img convert -O qcow2 -o compat=0.10 boots d", "qcow2"),
    ("qemu-img convert -O qcow2 -c -o compression_type=zlib boots d", "qcow2"),
    ("qemu-img convert -O qcow2 -c -o compression_type=zstd boots d", "qcow2"),
    ("qemu-img convert -O qcow2 -o extended_l2=on boots d", "qcow2"),
    ("qemu-img convert -O qcow2 -o lazy_refcounts=on boots d", "qcow2"),
    ("qemu-img convert -O qcow2 boots d && qemu-img snapshot -c s d", "qcow2"),
]
HEADERS = [
    # offset | value there | part of the reason, empty when accepted
    (79, b"\x01", ""),  # the image was not closed
    (79, b"\x02", "is marked as corrupt; repair it with `qemu-img check -r all`"),
    (79, b"\x04", "refers to another file"),
    (78, b"\x80", "the image can't be read"),  # an unknown feature
    (104, b"\x07", "the image can't be read"),  # an unknown compression
    (35, b"\x02", "is an encrypted qcow2 image (LUKS); decrypt it"),
    (35, b"\x09", "is an encrypted qcow2 image; decrypt it"),
    (7, b"\x09", "is a damaged qcow2 image, or one of version 9"),
]


def create_image(folder: Path, command: str) -> Path:
    """Runs a shell command that creates file d; it may use `boots`, a raw image that boots."""
    (folder / "boots").write_bytes(BOOTS)
    subprocess.run(["sh", "-e", "-c", command], cwd=folder, check=True, capture_output=True)
    return folder / "d"


def refusal(path: Path) -> str:
    try:
        asyncio.run(image.verify(path))
    except PermanentFailure as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("command", "reason"), REFUSED)
def test_an_unbootable_image_is_refused_with_a_remedy(tmp_path: Path, command: str, reason: str) -> None:
    assert reason in refusal(create_image(tmp_path, command))


@pytest.mark.slow
def test_an_image_encrypted_by_qemu_img_is_refused(tmp_path: Path) -> None:
    create = f"qemu-img create -f qcow2 {KEY} -o {LUKS} d 1M"
    # On a busy machine qemu-img may be "unable to get accurate CPU usage", which it needs to choose its iterations.
    path = create_image(tmp_path, f"for try in 1 2 3 4 5 6 7 8 9; do if {create}; then exit; fi; done; exit 1")
    assert "is an encrypted qcow2 image (LUKS); decrypt it" in refusal(path)


@pytest.mark.parametrize(("command", "format_"), ACCEPTED)
def test_a_bootable_image_is_accepted_in_any_format(tmp_path: Path, command: str, format_: str) -> None:
    assert asyncio.run(image.verify(create_image(tmp_path, command))) == format_


@pytest.mark.parametrize(("offset", "value", "reason"), HEADERS)
def test_flags_of_a_qcow2_header(tmp_path: Path, offset: int, value: bytes, reason: str) -> None:
    path = create_image(tmp_path, "qemu-img convert -O qcow2 boots d")
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    found = refusal(path)
    assert reason in found
    assert bool(reason) == bool(found)
