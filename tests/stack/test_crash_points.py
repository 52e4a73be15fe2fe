"""Killed at any of their crash points, the agent and Kahuna recover: nothing is lost, doubled or orphaned.

Both die at each point that they pass in `create`, `resize`, `stop` and `delete`; other points in another workflow.
"""

import pytest

from tests.stack.crash_points import crash_points
from tests.stack.site import Site
from tests.stack.slow_source import SlowSource
from tests.stack.sweep import DEATHS_IN_A_ROW, Sweep

pytestmark = pytest.mark.libvirt


@pytest.fixture(scope="module")
def sweep(site: Site, slow_source: SlowSource) -> Sweep:
    new_sweep = Sweep(site, slow_source)
    new_sweep.record_passed_points()
    return new_sweep


def test_each_point_is_passed_by_a_workflow(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert {point for passed in sweep.passed.values() for point in passed} <= crash_points()
    passing = {point: sweep.workflows_passing(point) for point in sorted(crash_points())}
    with capsys.disabled():
        print(f"\n  {len(passing)} crash points, {sum(map(len, passing.values()))} deaths")  # noqa: T201
        for point, workflows in passing.items():
            print(f"  {point:28} {', '.join(workflows)}")  # noqa: T201
    assert [point for point, workflows in passing.items() if not workflows] == []


@pytest.mark.parametrize("point", sorted(crash_points()))
def test_a_program_killed_at_a_crash_point_recovers(sweep: Sweep, point: str) -> None:
    assert sweep.workflows_passing(point), f"no workflow passes {point}"
    sweep.die_at(point)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["kahuna.store.written", "kahuna.store.committed"])
def test_kahuna_recovers_from_deaths_at_successive_commits(sweep: Sweep, point: str) -> None:
    sweep.die_repeatedly("instance", [point] * DEATHS_IN_A_ROW)


@pytest.mark.slow
def test_the_agent_recovers_from_deaths_at_successive_points(sweep: Sweep) -> None:
    create_points = [point for point in sweep.passed["create"] if not point.startswith("kahuna.")]
    delete_points = [point for point in sweep.passed["delete"] if not point.startswith("kahuna.")]
    sweep.die_repeatedly("instance", create_points, delete_points)
