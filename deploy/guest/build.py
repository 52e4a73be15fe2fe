"""Builds the guest image: `python -m deploy.guest.build --out DIR`.

DIR then contains vmlinuz, initrd.gz, kowa-guest.qcow2 (boots through BIOS) and its .sha256; DIR/debs the packages it is
built from. A second call returns at once while the recipe is the same; remove DIR for newer packages.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from deploy.guest import debs, disk, initrd

IMAGE = "kowa-guest.qcow2"
RESULTS = ("vmlinuz", "initrd.gz", IMAGE, f"{IMAGE}.sha256")
RECIPE = "recipe.sha256"
DRAFT = ".building-"


def build(out: Path) -> bool:
    """Builds the image in `out` unless it is there. Returns whether it was built.

    Parallel calls wait for each other. Files appear whole or not at all.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recipe = recipe_digest()
        if _is_built(out, recipe):
            return False
        for interrupted in out.glob(f"{DRAFT}*"):
            shutil.rmtree(interrupted)
        with tempfile.TemporaryDirectory(prefix=DRAFT, dir=out) as scratch:
            work = Path(scratch)
            _make(work, out / "debs")
            (out / RECIPE).unlink(missing_ok=True)
            for name in RESULTS:
                (work / name).replace(out / name)
            (out / RECIPE).write_text(recipe)
        return True


def recipe_digest() -> str:
    """The digest of all files of this package."""
    here = Path(__file__).parent
    files = sorted(path for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(here)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _is_built(out: Path, recipe: str) -> bool:
    built = out / RECIPE
    return built.exists() and built.read_text() == recipe and all((out / name).exists() for name in RESULTS)


def _make(work: Path, cache: Path) -> None:
    tree = work / "tree"
    debs.unpack(debs.fetch([debs.kernel(), "busybox-static", *debs.with_dependencies("dropbear-bin")], cache), tree)
    shutil.copyfile(next((tree / "boot").glob("vmlinuz-*")), work / "vmlinuz")
    (work / "initrd.gz").write_bytes(initrd.make(tree))
    image = disk.make(work)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    (work / f"{IMAGE}.sha256").write_text(f"{digest}  {IMAGE}\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.guest.build", description="Build the small guest image.")
    parser.add_argument("--out", type=Path, required=True, help="directory for the image")
    out = parser.parse_args().out
    started = time.monotonic()
    try:
        built = build(out)
    except debs.AptError as error:
        sys.exit(f"guest: {error}")
    print(f"{out / IMAGE} {'built in' if built else 'is up to date,'} {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
