"""On a Debian that has nothing but git, make and sudo, the two commands of the README are enough."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    promises = ("hello  running", "kowabunga: proof=", "nothing is left")
    command = "make demo; make -s down; make -s leftovers"
    done = subprocess.run(
        [str(SCRIPT), str(root), command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0 or not all(promise in done.stdout for promise in promises):
        pytest.fail(done.stdout[-5000:], pytrace=False)
