"""What is said about the code without running it: format, lint, types, contracts, and that a wheel holds all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PLACES = ["sdk", "server", "agent_kaktus", "agent_kiwi", "cli", "gateway", "deploy", "tests", "bench"]


def run(*command: str, cwd: Path = ROOT) -> None:
    """Runs a tool and fails with what it says."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command[:4])} ...\n{done.stdout}{done.stderr}", pytrace=False)


def test_format() -> None:
    run(str(BIN / "ruff"), "format", "--check", ".")


def test_lint() -> None:
    run(str(BIN / "ruff"), "check", ".")


def test_types() -> None:
    run(str(BIN / "mypy"), *[place for place in PLACES if any((ROOT / place).rglob("*.py"))])


def test_contracts_are_formatted() -> None:
    run(str(BIN / "buf"), "format", "--diff", "--exit-code", "proto")


def test_contracts_are_linted() -> None:
    run(str(BIN / "buf"), "lint")


@pytest.mark.slow
def test_a_wheel_from_a_clean_clone_imports_elsewhere(tmp_path: Path) -> None:
    """The editable install puts whole folders on the path; only a wheel proves that nothing is missing from it."""
    clone, site = tmp_path / "clone", tmp_path / "site"
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=clone)
    wheel = next(tmp_path.glob("*.whl"))
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    modules = (
        "kowa.client, kowa.aio, kowa.fleet.v1.fleet_pb2, kahuna.serve, agent_kaktus.worker, agent_kiwi.main, "
        "kowactl.main, gateway.main"
    )
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    # -S and a path of its own: nothing of the checkout is found by accident.
    script = f"import sys; sys.path[:0] = [{str(site)!r}, {packages!r}]; import {modules}"
    run(sys.executable, "-S", "-c", script, cwd=tmp_path)
    assert (site / "gateway" / "envoy.yaml").is_file(), "the gateway would have no configuration"
    assert (site / "kowa" / "py.typed").is_file(), "type checkers would not look at the SDK"
