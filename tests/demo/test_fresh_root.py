"""On a Debian that has nothing but git, make and sudo, the two commands of the README are enough."""

import re
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
DEMO_TIMEOUT_S = 880  # creating the root included
OTHERS_TIMEOUT_S = 60  # for other demos and tests to remove what belongs to no running demo


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The folder of the fresh Debian; it is large, so it is removed."""
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)


def test_make_demo_on_a_fresh_debian(root: Path) -> None:
    result = subprocess.run(
        [str(SCRIPT), str(root), "make demo; make -s down; make -s leftovers || true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    expected = ("hello  running", "kowabunga: proof=", "kahuna stopped")
    if result.returncode != 0 or not all(text in result.stdout for text in expected):
        pytest.fail(result.stdout[-5000:], pytrace=False)
    layout = Layout(root / "root" / "kowabunga")
    created = services.host_objects(layout.kaktus / "state")
    assert created.devices
    assert created.tables
    after = result.stdout.rpartition("kahuna stopped\n")[2].splitlines()
    found = [line for line in after if not re.match(r"make(\[\d+\])?: \*\*\* ", line)]  # numbered below another make
    assert found, "make leftovers printed nothing"
    if found != ["nothing is left"]:
        until(lambda: not still_left(layout, found), timeout=OTHERS_TIMEOUT_S, what=f"nothing is left of {found}")


def still_left(layout: Layout, found: list[str]) -> list[str]:
    """The lines of `make leftovers` that are still true and not of another running demo.

    Devices and tables are those of the whole machine, of other demos, too, whose processes the fresh Debian can't see.
    """
    others = services.objects_of_other_checkouts(layout)
    others_names = {name for other in others for name in (*other.devices, *other.tables)}
    present = inventory()

    def is_left(line: str) -> bool:
        kind, _, name = line.partition(": ")
        return kind not in ("devices", "tables") or (name in present[kind] and name not in others_names)

    return [line for line in found if is_left(line)]
