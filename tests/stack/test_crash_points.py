"""Killed at any of its crash points, the agent or Kahuna goes on from there: nothing is lost, doubled or orphaned.

Both die at each point they pass in `create`, `resize`, `stop` and `delete`; what these do not pass, others do.
"""

import pytest

from tests.stack.crash_points import crash_points
from tests.stack.site import Site
from tests.stack.slow_source import SlowSource
from tests.stack.sweep import DEATHS_IN_A_ROW, Sweep

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def sweep(site: Site, slow_source: SlowSource) -> Sweep:
    made = Sweep(site, slow_source)
    made.learn()
    return made


def test_each_point_is_passed_by_a_workflow(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    passing = {point: sweep.passing(point) for point in sorted(crash_points())}
    with capsys.disabled():
        print(f"\n  {len(passing)} crash points, {sum(map(len, passing.values()))} deaths")  # noqa: T201
        for point, workflows in passing.items():
            print(f"  {point:28} {', '.join(workflows)}")  # noqa: T201
    assert [point for point, workflows in passing.items() if not workflows] == []


@pytest.mark.parametrize("point", sorted(crash_points()))
def test_killed_there_it_goes_on_from_there(sweep: Sweep, point: str) -> None:
    assert sweep.passing(point), f"no workflow passes {point}"
    sweep.die(point)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["kahuna.store.written", "kahuna.store.committed"])
def test_kahuna_dies_at_one_commit_after_the_other(sweep: Sweep, point: str) -> None:
    sweep.die_again_and_again("machine", [point] * DEATHS_IN_A_ROW)


@pytest.mark.slow
def test_the_agent_dies_at_one_point_after_the_other(sweep: Sweep) -> None:
    kept = [point for point in sweep.passed["create"] if not point.startswith("kahuna.")]
    lost = [point for point in sweep.passed["delete"] if not point.startswith("kahuna.")]
    sweep.die_again_and_again("machine", kept, lost)
