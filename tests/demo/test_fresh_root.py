"""On a Debian that has nothing but git, make and sudo, the two commands of the README are enough."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo import services
from deploy.demo.layout import Layout
from deploy.demo.leftovers import inventory
from deploy.programs import until

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("fresh-root")
# The making of the root included.
LIMIT_S = 880
# For what a demo or a test beside it makes and removes: those of its devices that no running demo has.
OTHERS_LIMIT_S = 60


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Where the fresh Debian is made; it is large, and not kept."""
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)


def test_make_demo_on_a_fresh_debian(root: Path) -> None:
    done = subprocess.run(
        [str(SCRIPT), str(root), "make demo; make -s down; make -s leftovers || true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    promises = ("hello  running", "kowabunga: proof=", "kahuna stopped")
    if done.returncode != 0 or not all(promise in done.stdout for promise in promises):
        pytest.fail(done.stdout[-5000:], pytrace=False)
    layout = Layout(root / "root" / "kowabunga")
    made = services.host_objects(layout.kaktus / "state")
    assert made.devices
    assert made.tables
    after = done.stdout.rpartition("kahuna stopped\n")[2].splitlines()
    found = [line for line in after if not line.startswith("make: ***")]
    assert found, "make leftovers says either way"
    if found != ["nothing is left"]:
        until(lambda: not still_left(layout, found), timeout=OTHERS_LIMIT_S, what=f"nothing is left of {found}")


def still_left(layout: Layout, found: list[str]) -> list[str]:
    """What `make leftovers` has found that is still there and belongs to no other demo that runs.

    Devices and tables are this machine's. Demos beside the fresh Debian have theirs, too, but their processes can't be
    seen from there.
    """
    others = services.objects_of_other_checkouts(layout)
    theirs = {name for other in others for name in (*other.devices, *other.tables)}
    here = inventory()

    def is_left(line: str) -> bool:
        kind, _, name = line.partition(": ")
        return kind not in ("devices", "tables") or (name in here[kind] and name not in theirs)

    return [line for line in found if is_left(line)]
