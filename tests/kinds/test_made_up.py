"""A kind that is in no release works from its contract, its home and a migration alone: gRPC, kowactl, slices.

How REST takes it, `tests/kahuna/test_parts.py` and `tests/gateway/test_parts.py` show.
"""

import subprocess
from pathlib import Path

import pytest

from tests.made_up import PROGRAM

ROOT = Path(__file__).parents[2]
LIMIT_S = 300


@pytest.mark.slow
def test_a_kind_made_up_here_works_from_its_contract_and_its_home() -> None:
    """In processes of their own: this one's contract is read already."""
    command = [*PROGRAM, "pytest", "-q", "-p", "no:cacheprovider", "tests/kinds/made_up_stories.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
