"""Disk images: what a file says of itself, and what qemu-img does."""

import asyncio
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_kaktus import process
from agent_kaktus.failures import GivenUp, StepFailed

LARGEST = 16 << 40  # bytes a template may claim to have
SECTOR = 512
_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing name's offset and length, cluster bits, size
_FEATURES = struct.Struct(">Q")
_FEATURES_AT = 72
_EXTERNAL_DATA = 1 << 2
_LONGEST_NAME = 1023
_TEXT = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 0x100))
_BOOT_MARK = b"\x55\xaa"
_INFO = ("info", "--output=json", "-f", "qcow2")
_MOST_MEMORY = 1 << 30  # address space, of which a sound image needs a quarter
_MOST_SECONDS = 30  # of a processor


class NoImage(Exception):
    """What a file is instead."""


@dataclass(frozen=True, slots=True)
class Header:
    size: int
    backing: str
    has_external_data: bool


def is_qcow2(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_header(path: Path) -> Header:
    """Read directly: an image that QEMU has open can be looked at too, and a hundred of them cost nothing."""
    with path.open("rb") as file:
        start = os.pread(file.fileno(), _FEATURES_AT + _FEATURES.size, 0)
        if len(start) < _HEADER.size or not start.startswith(_MAGIC):
            raise NoImage("is not a qcow2 image")
        _, version, at, length, _, size = _HEADER.unpack_from(start)
        if version not in (2, 3) or length > _LONGEST_NAME:
            raise NoImage(f"is a damaged qcow2 image, or one of version {version}")
        if at + length > os.lseek(file.fileno(), 0, os.SEEK_END):
            raise NoImage("is a damaged qcow2 image: the name of what it stands on lies behind its end")
        backing = os.pread(file.fileno(), length, at).decode(errors="replace") if at else ""
    features = _FEATURES.unpack_from(start, _FEATURES_AT)[0] if version == 3 else 0
    return Header(size, backing, bool(features & _EXTERNAL_DATA))


async def verify(path: Path) -> tuple[str, int]:
    """Format and virtual size of something that came from elsewhere. Raises GivenUp if it can't be a template."""
    if not await asyncio.to_thread(is_qcow2, path):
        return "raw", await asyncio.to_thread(_verify_raw, path)
    try:
        header = await asyncio.to_thread(read_header, path)
    except NoImage as what:
        raise GivenUp(f"what the source holds {what}") from what
    if header.backing or header.has_external_data:
        raise GivenUp("the image refers to another file; flatten it with `qemu-img convert`")
    try:
        found = await _info_of_a_stranger(path)
    except StepFailed as why:
        raise GivenUp(f"the image can't be read: {why}") from why
    if found.get("format") != "qcow2" or "backing-filename" in found or "data-file" in _specific(found):
        raise GivenUp("the image refers to another file; flatten it with `qemu-img convert`")
    return "qcow2", _sane(int(found["virtual-size"]))


def _specific(found: dict[str, Any]) -> dict[str, Any]:
    return dict(found.get("format-specific", {}).get("data", {}))


def _verify_raw(path: Path) -> int:
    """Anything can be a raw image; one that a machine can boot from ends its first sector with a boot mark."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(SECTOR)
    if start.endswith(_BOOT_MARK) and len(start) == SECTOR and size % SECTOR == 0:
        return _sane(size)
    looks = "text" if start and not set(start) - _TEXT else "data"
    raise GivenUp(f"what the source holds is {looks}, no disk image: neither qcow2 nor raw with a boot sector")


def _sane(size: int) -> int:
    if not 0 < size <= LARGEST:
        raise GivenUp(f"the image claims to have {size} bytes")
    return size


async def info(path: Path) -> dict[str, Any]:
    return dict(json.loads(await qemu_img(*_INFO, str(path))))


async def _info_of_a_stranger(path: Path) -> dict[str, Any]:
    """Whoever made it may have meant qemu-img to eat the host."""
    limits = (f"--as={_MOST_MEMORY}", f"--cpu={_MOST_SECONDS}", "--core=0")
    return dict(json.loads(await process.run("prlimit", *limits, "qemu-img", *_INFO, str(path))))


async def create(path: Path, size: int) -> None:
    await qemu_img("create", "-q", "-f", "qcow2", str(path), str(size))


async def overlay(path: Path, size: int, backing: str, backing_format: str) -> None:
    """A thin image on another of the same directory."""
    await qemu_img("create", "-q", "-f", "qcow2", "-b", backing, "-F", backing_format, str(path), str(size))


async def resize(path: Path, size: int) -> None:
    await qemu_img("resize", "-q", "-f", "qcow2", str(path), str(size))


async def qemu_img(*arguments: str) -> str:
    return await process.run("qemu-img", *arguments)
