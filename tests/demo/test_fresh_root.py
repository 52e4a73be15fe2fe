"""On a Debian that has nothing but git, make and sudo, the two commands of the README are enough."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.services import host_objects

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("fresh-root")
# The making of the root included.
LIMIT_S = 880


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Where the fresh Debian is made; it is large, and not kept."""
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)


def test_make_demo_on_a_fresh_debian(root: Path) -> None:
    command = "make demo; make -s down; make -s leftovers || true"
    done = subprocess.run(
        [str(SCRIPT), str(root), command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    promises = ("hello  running", "kowabunga: proof=", "kahuna stopped")
    if done.returncode != 0 or not all(promise in done.stdout for promise in promises) or left(root, done.stdout):
        pytest.fail(done.stdout[-5000:], pytrace=False)


def left(root: Path, output: str) -> list[str]:
    """What `make leftovers` has found. Networks are this machine's: those of demos that run beside it, whose processes
    can't be seen from there, are not its own."""
    made = host_objects(root / "root" / "kowabunga" / ".demo" / "kaktus" / "state")
    assert made.devices
    assert made.tables
    after = output.rpartition("kahuna stopped\n")[2].splitlines()
    found = [line.partition(": ")[::2] for line in after if line.partition(": ")[0] in ("devices", "tables")]
    others = [line for line in after if line.partition(": ")[0] in ("files", "mounts", "namespaces", "process")]
    return [*(name for _, name in found if name in (*made.devices, *made.tables)), *others]
