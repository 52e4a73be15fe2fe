"""A kind works from its contract, its module in Kahuna and a migration alone: gRPC, kowactl, slices.

REST is tested in `tests/kahuna/test_parts.py` and `tests/gateway/test_parts.py`.
"""

import subprocess
from pathlib import Path

import pytest

from tests.made_up import PROGRAM

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300


@pytest.mark.slow
def test_a_made_up_kind_works_from_its_contract_and_its_module() -> None:
    """In a new process, since this one has read the contract already."""
    command = [*PROGRAM, "pytest", "-q", "-p", "no:cacheprovider", "tests/kinds/made_up_scenarios.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
