"""Debian packages as files: chosen by apt, downloaded, unpacked, never installed."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

APT_TIMEOUT_S = 300
"""For one call of apt."""


class AptError(Exception):
    """An error of apt or dpkg, with its own text."""


class Deb(NamedTuple):
    file: str
    sha256: str


def kernel() -> str:
    """The package of the newest cloud kernel."""
    return _depends("linux-image-cloud-amd64", recurse=False)[0]


def with_dependencies(package: str) -> list[str]:
    """A package and all that it depends on."""
    return _depends(package, recurse=True)


def fetch(packages: Iterable[str], into: Path) -> list[Path]:
    """The files of the packages' candidate versions, downloaded unless they are there already.

    Raises AptError for a package that apt does not know or can't download.
    """
    into.mkdir(parents=True, exist_ok=True)
    names = list(packages)
    wanted = _candidates(names)
    if not all(_is_whole(into / deb.file, deb.sha256) for deb in wanted):
        _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=", "download", *names], cwd=into)
    return [into / deb.file for deb in wanted]


def unpack(debs: Iterable[Path], into: Path) -> None:
    """Extracts the packages' files below `into`."""
    for deb in debs:
        _run(["dpkg-deb", "--extract", str(deb), str(into)])


def _depends(package: str, *, recurse: bool) -> list[str]:
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    options = ["--recurse"] if recurse else []
    listing = _run(["apt-cache", "depends", *options, *(f"--no-{kind}" for kind in kinds), package])
    found = re.findall(r"^(\w\S*)$" if recurse else r"^  Depends: (\S+)$", listing, re.MULTILINE)
    if not found:
        raise AptError(f"apt knows no package {package}; `apt-get update` (as root) may help")
    return sorted(found)


def _candidates(packages: list[str]) -> list[Deb]:
    listing = _run(["apt-get", "-qq", "download", "--print-uris", *packages])
    found = re.findall(r"^'\S+' (\S+) \d+ SHA256:(\w+)$", listing, re.MULTILINE)
    if len(found) != len(packages):
        raise AptError(f"apt can't download all of {' '.join(packages)}; `apt-get update` (as root) may help")
    return [Deb(*deb) for deb in sorted(found)]


def _is_whole(file: Path, sha256: str) -> bool:
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=APT_TIMEOUT_S
    )
    if done.returncode != 0:
        raise AptError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
