"""What may run beside what: pools, volumes in them, and machines with these volumes."""

from dataclasses import dataclass
from typing import Any

from kowa.runtime.desired import Desired, DesiredObject
from kowa.runtime.runs import MAX_PARALLEL, Run, Runs
from kowa.runtime.verdict import Step, Verdict


@dataclass(frozen=True, slots=True)
class Thing(DesiredObject):
    uses: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        return self.uses


async def _do(_: Any) -> None:
    """Changes nothing."""


CHANGE, EXCLUSIVE = Verdict((Step("change", "it", _do),)), Verdict((Step("grow", "it", _do, is_exclusive=True),))
REFERENCES = {"pool": (), "disk": ("pool",), "web": ("disk",), "db": ("pool",)}


def run(runs: Runs, name: str, *gone: str, verdict: Verdict = CHANGE, observation: int | None = None) -> Run:
    """A run of an object, in a slice in which some objects are to be gone, from the latest observation."""
    things = {id_: Thing(id_, 1, id_ in gone, id_, uses) for id_, uses in REFERENCES.items()}
    desired = Desired({Thing: things})
    return Run.of(desired, things[name], verdict, runs.ended if observation is None else observation)


def may_begin(runs: Runs, candidate: Run) -> bool:
    return runs.conflicting(candidate) is None and not runs.is_outdated(candidate)


def test_an_object_has_one_run_at_a_time() -> None:
    runs = Runs()
    runs.begin(run(runs, "web"))
    assert not may_begin(runs, run(runs, "web"))
    assert may_begin(runs, run(runs, "disk"))
    assert may_begin(runs, run(runs, "pool"))


def test_a_removal_waits_for_the_run_of_whatever_uses_its_object_also_through_others() -> None:
    runs = Runs()
    runs.begin(using := run(runs, "web"))
    for removed in ("disk", "pool"):
        assert not may_begin(runs, run(runs, removed, removed))
        assert not may_begin(runs, run(runs, removed, removed, verdict=Verdict(gone=True))), "it would count as gone"
    runs.end(using)
    assert may_begin(runs, run(runs, "disk", "disk"))


def test_a_run_does_not_begin_beside_the_removal_of_what_it_needs() -> None:
    """As after a restore of the database, in which an object is wanted again."""
    runs = Runs()
    runs.begin(removing := run(runs, "disk", "disk"))
    assert not may_begin(runs, run(runs, "web"))
    assert may_begin(runs, run(runs, "web", "disk")), "it is planned without that disk, such as to be stopped"
    assert may_begin(runs, run(runs, "db"))
    runs.end(removing)
    assert may_begin(runs, run(runs, "web"))


def test_an_exclusive_step_is_not_beside_a_run_that_uses_its_object() -> None:
    runs = Runs()
    runs.begin(growing := run(runs, "disk", verdict=EXCLUSIVE))
    assert not may_begin(runs, run(runs, "web"))
    runs.end(growing)
    runs.begin(run(runs, "web"))
    assert not may_begin(runs, run(runs, "disk", verdict=EXCLUSIVE))
    assert may_begin(runs, run(runs, "disk"))


def test_a_plan_is_outdated_by_the_end_of_a_run_that_it_could_not_have_been_beside() -> None:
    runs = Runs()
    runs.begin(changing := run(runs, "web"))
    before = runs.ended
    runs.end(changing)
    assert not may_begin(runs, run(runs, "web", observation=before))
    assert not may_begin(runs, run(runs, "disk", "disk", observation=before))
    assert may_begin(runs, run(runs, "disk", observation=before))
    assert may_begin(runs, run(runs, "db", observation=before))
    runs.begin(removing := run(runs, "disk", "disk"))
    before = runs.ended
    runs.end(removing)
    assert not may_begin(runs, run(runs, "web", observation=before))
    assert may_begin(runs, run(runs, "web"))


def test_runs_whose_step_is_slow_leave_room_for_others() -> None:
    runs = Runs()
    for number in range(MAX_PARALLEL):
        assert runs.has_room()
        thing = Thing(str(number), 1, False, str(number))
        runs.begin(Run.of(Desired({Thing: {thing.id: thing}}), thing, CHANGE, 0))
    assert not runs.has_room()
    next(iter(runs)).is_slow = True
    assert runs.has_room()
