"""A full Debian 12 with cloud-init, as a template: `python -m tests.cloud_image.build`. Needs root.

It stands in .cache/cloud-image and is made anew when the recipe (the files of this folder that make it) has changed.
"""

import fcntl
import hashlib
import tempfile
from pathlib import Path

from tests.cloud_image import disk, tree

CACHE = Path(__file__).parents[2] / ".cache" / "cloud-image"
IMAGE = "debian-12.qcow2"
_CHECKSUM = f"{IMAGE}.sha256"
_RECIPE = "recipe.sha256"


def build(out: Path = CACHE) -> tuple[str, str]:
    """The image's name in `out` and its checksum. Two calls at a time are fine; half an image is never seen."""
    out.mkdir(parents=True, exist_ok=True)
    recipe = _recipe_digest()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _text(out / _RECIPE) != recipe or not (out / IMAGE).exists():
            (out / _RECIPE).unlink(missing_ok=True)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=out) as scratch:
                image = disk.make(Path(scratch), tree.make(Path(scratch)))
                (out / _CHECKSUM).write_text(_sha256(image))
                image.replace(out / IMAGE)
            (out / _RECIPE).write_text(recipe)
        return IMAGE, _text(out / _CHECKSUM)


def _recipe_digest() -> str:
    files = (Path(__file__), Path(disk.__file__), Path(tree.__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    build()
