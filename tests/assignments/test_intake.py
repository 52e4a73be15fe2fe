"""Of what an agent reports, only what follows from what it was told is believed."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from kahuna.domain.assignments import exclusive, intake
from kahuna.domain.assignments.assignment import Assignment, Region, Row
from kahuna.domain.assignments.exclusive import Exclusive
from kahuna.domain.assignments.intake import Session
from kowa.assignments import GONE, PREPARE, PRESENT, RELEASED, SWITCHED, Holding
from tests.assignments.catalogue import lacking

DEMANDS = (PREPARE, PRESENT, RELEASED, GONE)
REGION = Region(frozenset("ab"), connected=frozenset("ab"))
REPORTS, MIN_SHARE = 2000, 0.3  # of them that are acceptable


Report = tuple[Exclusive, str, Session, Holding]


def report(random: Random) -> Report:
    """A report about a machine at its second generation: some say what was told, the others nearly so."""
    machine = exclusive.changed(exclusive.created("a", REGION), REGION, 2)
    moved, moving = exclusive.moved(machine, REGION, "b"), exclusive.live_move_begun(machine, REGION, "b")
    machine = random.choice([machine, moved, moving, exclusive.marked(machine, REGION)])
    own = random.choice(machine.assignments)
    told = Holding(own.demand, own.epoch, 2 if own.demand == PRESENT else 0)
    if random.random() < 0.4:
        return machine, own.agent, Session(told), told
    generation = random.choice([0, 1, told.generation, told.generation, 3, 10**15])
    demand = random.choice([own.demand, *DEMANDS])
    said = Holding(demand, own.epoch + random.choice([-1, 0, 0, 0, 1]), generation)
    listed = random.choice([told, told, told, told._replace(epoch=told.epoch - 1), None])
    return machine, own.agent, Session(listed, living=random.random() < 0.8), said


def follows(machine: Exclusive, agent: str, session: Session, said: Holding) -> bool:
    """Whether a report follows from what the agent was told and what it shall do."""
    own, told = machine.of(agent), session.told
    if not session.living or own is None or told is None:
        return False
    return (said.demand, said.epoch) == (own.demand, own.epoch) == (told.demand, told.epoch) and (
        said.generation <= told.generation
    )


def check(machine: Exclusive, agent: str, session: Session, said: Holding) -> bool:
    """Whether a report was acceptable. Raises AssertionError if it was not treated so."""
    done = intake.take_report(machine, REGION, agent, session, said)
    failed = intake.take_failure(machine, agent, session, said)
    if not follows(machine, agent, session, said):
        assert done.object == failed.object == machine
        assert done.dropped
        assert done.dropped == failed.dropped
        return False
    assert not done.dropped
    assert not failed.dropped
    if said.demand == PRESENT and said.generation < machine.generation:
        assert done.object == failed.object == machine
        return True
    after, hurt = done.object.of(agent), failed.object.of(agent)
    assert hurt is not None
    assert hurt.failed
    if said.demand == GONE:
        assert done.object.row == Row.REMOVED
    elif said.demand == RELEASED:
        assert after is None or after.demand != RELEASED
    else:
        assert after is not None
        assert after.applied
    return True


def check_all() -> int:
    """How many of the generated reports were acceptable. Raises AssertionError if one was not treated as it should."""
    random = Random(1)  # noqa: S311
    return sum(check(*report(random)) for _ in range(REPORTS))


def test_what_does_not_follow_is_dropped_and_changes_nothing() -> None:
    assert check_all() >= MIN_SHARE * REPORTS


def _without_demand(own: Assignment, session: Session, done: Holding) -> Any:
    return _mismatch(own, session, done._replace(demand=own.demand))


def _without_epoch(own: Assignment, session: Session, done: Holding) -> Any:
    return _mismatch(own, session, done._replace(epoch=own.epoch))


def _without_delivery(own: Assignment, _: Session, done: Holding) -> Any:
    return _mismatch(own, Session(done), done)


_mismatch = intake.mismatch


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"mismatch": _without_demand}, id="GONE is believed of what was never told GONE"),
        pytest.param({"mismatch": _without_epoch}, id="the answer to an earlier assignment is believed"),
        pytest.param({"mismatch": _without_delivery}, id="a generation that was never delivered is believed"),
        pytest.param({"is_living": lambda _: True}, id="an ended session is believed"),
        pytest.param({"is_of_generation": lambda *_: True}, id="an older generation counts for the present one"),
    ],
)
def test_each_fault_is_found_when_it_is_put_back(fault: dict[str, Callable[..., Any]]) -> None:
    with lacking(fault), pytest.raises(AssertionError):
        check_all()


def test_a_source_that_has_handed_over_holds_nothing_whatever_it_was_told() -> None:
    machine = exclusive.restarted(exclusive.created("a", REGION))._replace(found=frozenset("b"))
    taken = intake.take_report(machine, REGION, "b", Session(), Holding(SWITCHED, 5, 1))
    assert taken.object.found == frozenset()
