"""The two promises of the README: one command makes a cloud, and the tour runs as it is written."""

import os
import pty
import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.libvirt, pytest.mark.slow]
# In seconds; the set-up of a new .venv included.
UP = 600


class Checkout:
    """A clean clone of its own, with its own ports, subnet and bridge names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)

    def run(self, command: str, limit: float = UP) -> str:
        """What a shell command in it says. Fails with that when the command does."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("KOWABUNGA_", "KAHUNA_"))
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=limit, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.fail(f"{command}\n{done.stdout}", pytrace=False)
        return done.stdout

    def pids(self) -> list[int]:
        """All processes of its demo, guests among them."""
        said = self.run("make -s status")
        return [int(pid) for line in said.splitlines() if " pid " in line for pid in re.findall(r"\d+", line)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """One clone for the module; nothing of it is left on the machine afterwards."""
    made = Checkout(tmp_path_factory.mktemp("demo") / "kowabunga")
    # Packages are downloaded for this checkout's image once; the clone may use them.
    cache = ROOT / ".cache" / "guest"
    if cache.is_dir():
        made.run(f"mkdir -p .cache && cp -a '{cache}' .cache/")
    try:
        yield made
    finally:
        made.run("make -s down")


def test_one_command_makes_a_cloud(checkout: Checkout) -> None:
    said = checkout.run("make demo")
    for promise in ("hello  running", "kowabunga: proof=", "gRPC and REST", "admin key", "Next:"):
        assert promise in said
    assert oct((checkout.folder / ".demo" / "env").stat().st_mode & 0o777) == "0o600"
    assert oct((checkout.folder / ".demo" / "admin.key").stat().st_mode & 0o777) == "0o600"


def test_the_tour_of_the_readme_runs_as_written(checkout: Checkout) -> None:
    tour = (checkout.folder / "README.md").read_text().partition("## A ten-minute tour")[2]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", tour, re.DOTALL))
    python = re.search(r"```python\n(.*?)```", tour, re.DOTALL)
    assert python is not None
    said = checkout.run(f"{script}\npython3 - <<'END'\n{python[1]}END\n")
    assert "refused, with each host's reason" in said
    assert "project shop is gone" in said


def test_the_console_goes_both_ways_and_is_left_by_a_key(checkout: Checkout) -> None:
    command = ". .demo/env; exec .venv/bin/kowactl console hello"
    shown = b""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(checkout.folder)
        os.execv("/bin/bash", ["bash", "-c", command])  # noqa: S606

    def read_until(wanted: bytes) -> None:
        nonlocal shown
        while wanted not in shown:
            ready, _, _ = select.select([terminal], [], [], 20)
            assert ready, f"{wanted!r} did not come; it showed {shown!r}"
            shown += os.read(terminal, 4096)

    read_until(b"kowabunga: proof=")
    os.write(terminal, b"\recho $((6 * 7))-here\r")
    read_until(b"42-here")
    os.write(terminal, b"\x1d")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_a_second_run_finds_the_first_and_loses_nothing(checkout: Checkout) -> None:
    before = checkout.run(". .demo/env; .venv/bin/kowactl instance list -o json")
    pids = checkout.pids()
    checkout.run("make demo")
    assert checkout.pids() == pids
    assert checkout.run(". .demo/env; .venv/bin/kowactl instance list -o json") == before


def test_killed_whole_it_comes_back(checkout: Checkout) -> None:
    checkout.run(f"kill -9 {' '.join(map(str, checkout.pids()))}")
    said = checkout.run("make demo")
    assert "hello  running" in said


def test_nothing_is_left_on_the_machine(checkout: Checkout) -> None:
    checkout.run("make -s down")
    assert checkout.run("make -s leftovers") == "nothing is left\n"
