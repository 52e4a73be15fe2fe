"""The rules of assignments are searched for twins and lost disks: `python -m tests.assignments` shows what is found."""

import pytest
from _pytest.mark import ParameterSet

from tests.assignments.catalogue import GROUPS, LACKS, TRACES, bench, run
from tests.assignments.search import replay

QUICK = ("calm", "live", "live, power", "restore untold", "three, live")
BY_TRACE = ("never two", "disk safe")  # what a trace shows; the rest takes a search


def in_its_suite(value: str, group: str) -> ParameterSet:
    """A parameter of a test that searches a group; it is slow unless the group is small."""
    return pytest.param(value, marks=() if group in QUICK else pytest.mark.slow)


def traces() -> dict[str, list[str]]:
    """The recorded traces by the lack that they show."""
    parts = [part.splitlines() for part in TRACES.read_text().strip().split("\n\n")]
    return {lines[0].partition("':")[0] + "'": [line.strip() for line in lines[1:]] for lines in parts}


@pytest.mark.parametrize("group", [in_its_suite(group, group) for group in GROUPS])
def test_whatever_happens_there_is_no_twin_and_no_disk_is_lost(group: str) -> None:
    result = run(group)
    assert not result.violation, "\n".join([result.violation, *result.trace])


@pytest.mark.parametrize("title", traces())
def test_each_rule_keeps_a_twin_or_a_lost_disk_away(title: str) -> None:
    lack, trace = LACKS[title], traces()[title]
    with bench(lack.group, lack) as (start, steps):
        taken, violation = replay(start, steps, trace)
    assert taken == len(trace), f"without the rule, step {taken + 1} can't be taken: {trace[taken]}"
    assert violation.startswith(lack.violation)
    with bench(lack.group) as (start, steps):
        taken, violation = replay(start, steps, trace)
    assert not violation
    assert taken < len(trace), "with the rule, the whole trace can still be taken"


@pytest.mark.parametrize(
    "title", [in_its_suite(title, lack.group) for title, lack in LACKS.items() if lack.violation not in BY_TRACE]
)
def test_each_other_rule_keeps_somebody_from_waiting_for_ever(title: str) -> None:
    assert run(LACKS[title].group, LACKS[title]).violation.startswith(LACKS[title].violation)


def test_each_lack_that_a_trace_can_show_has_one() -> None:
    assert set(traces()) == {title for title, lack in LACKS.items() if lack.violation in BY_TRACE}
