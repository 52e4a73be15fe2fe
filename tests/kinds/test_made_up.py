"""A kind that is in no release works from its contract, its home and a migration alone: gRPC, REST, kowactl, slices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 300


@pytest.mark.gateway
def test_a_kind_made_up_here_works_from_its_contract_and_its_home() -> None:
    """In processes of their own: this one's contract is read already."""
    path = os.pathsep.join([str(ROOT / "tests" / "made_up" / "site"), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kinds/made_up_stories.py"]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
