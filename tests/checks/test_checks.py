"""Static checks of the code (format, lint, types, contracts), and that a wheel is complete."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
FOLDERS = ["sdk", "server", "agent_kaktus", "agent_kiwi", "cli", "gateway", "deploy", "tests", "bench"]


def run(*command: str, cwd: Path = ROOT) -> None:
    """Runs a tool; fails the test with its output."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        pytest.fail(f"{' '.join(command[:4])} ...\n{result.stdout}{result.stderr}", pytrace=False)


def test_the_code_is_formatted() -> None:
    run(str(BIN / "ruff"), "format", "--check", ".")


def test_the_code_has_no_lint() -> None:
    run(str(BIN / "ruff"), "check", ".")


def test_the_types_are_correct() -> None:
    run(str(BIN / "mypy"), *[folder for folder in FOLDERS if any((ROOT / folder).rglob("*.py"))])


def test_contracts_are_formatted() -> None:
    run(str(BIN / "buf"), "format", "--diff", "--exit-code", "proto")


def test_contracts_are_linted() -> None:
    run(str(BIN / "buf"), "lint")


@pytest.mark.slow
def test_a_wheel_of_a_clean_clone_is_complete(tmp_path: Path) -> None:
    """An editable install puts whole folders on the path; only a wheel shows files missing from the package."""
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
    # -S and an explicit path, so that nothing is imported from the checkout.
    script = f"import sys; sys.path[:0] = [{str(site)!r}, {packages!r}]; import {modules}"
    run(sys.executable, "-S", "-c", script, cwd=tmp_path)
    assert (site / "gateway" / "envoy.yaml").is_file(), "the gateway would have no configuration"
    assert (site / "kowa" / "py.typed").is_file(), "type checkers would ignore the SDK's types"
