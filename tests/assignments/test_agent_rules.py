"""An agent stores what it is sent, except what would start again what it has handed over."""

import pytest

from kowa.assignments import (
    GONE,
    INCOMING,
    NO_DOMAIN,
    PREPARE,
    PRESENT,
    RELEASED,
    RUNNING,
    STOPPED,
    SWITCHED,
    DomainState,
    HandOver,
    Holding,
)
from kowa.runtime.assignments import accepts, hand_over, is_carried_out, lets_target_go_on, to_store

ORDERED = Holding(PRESENT, 3, 1, HandOver("b", 4))
SWITCHED_3 = hand_over(ORDERED)


@pytest.mark.parametrize(
    ("held", "sent", "domain", "done", "stored"),
    [
        pytest.param(None, Holding(PRESENT, 1, 1), NO_DOMAIN, False, Holding(PRESENT, 1, 1), id="new"),
        pytest.param(SWITCHED_3, ORDERED, NO_DOMAIN, True, SWITCHED_3, id="handed over: never again at that epoch"),
        pytest.param(SWITCHED_3, Holding(PRESENT, 5, 1), NO_DOMAIN, True, Holding(PRESENT, 5, 1), id="at a new epoch"),
        pytest.param(SWITCHED_3, None, NO_DOMAIN, True, SWITCHED_3, id="handed over, and removed: kept"),
        pytest.param(Holding(RELEASED, 2), None, NO_DOMAIN, True, None, id="released, and removed: forgotten"),
        pytest.param(Holding(RELEASED, 2), None, STOPPED, False, Holding(RELEASED, 2), id="not released yet"),
        pytest.param(Holding(GONE, 2), None, NO_DOMAIN, True, None, id="destroyed, and removed: forgotten"),
        pytest.param(Holding(PRESENT, 2, 1), None, RUNNING, True, Holding(PRESENT, 2, 1), id="running: left alone"),
        pytest.param(Holding(PREPARE, 2), None, INCOMING, True, Holding(RELEASED, 2), id="never ran: undone"),
        pytest.param(
            Holding(PREPARE, 2), None, RUNNING, True, Holding(PREPARE, 2), id="prepared, and runs: left alone"
        ),
    ],
)
def test_what_is_stored(
    held: Holding | None, sent: Holding | None, domain: DomainState, done: bool, stored: Holding | None
) -> None:
    assert to_store(held, sent, domain=domain, done=done) == stored


def test_a_target_takes_a_machine_only_at_the_epoch_it_has_prepared_for() -> None:
    assert lets_target_go_on(SWITCHED_3)
    assert not lets_target_go_on(ORDERED)
    assert accepts(Holding(PREPARE, 4), INCOMING, 4)
    assert not accepts(Holding(PREPARE, 5), INCOMING, 4)
    assert not accepts(Holding(PREPARE, 4), RUNNING, 4)
    assert not accepts(Holding(RELEASED, 4), INCOMING, 4)


@pytest.mark.parametrize(
    ("held", "domain", "exists", "runs", "done"),
    [
        (Holding(PRESENT, 1, 1), RUNNING, True, True, True),
        (Holding(PRESENT, 1, 1), STOPPED, True, True, False),
        (Holding(PRESENT, 1, 1), STOPPED, True, False, True),
        (Holding(PRESENT, 1, 1), RUNNING, False, True, False),
        (Holding(PREPARE, 1), INCOMING, True, True, True),
        (Holding(PREPARE, 1), NO_DOMAIN, True, True, False),
        (Holding(RELEASED, 1), NO_DOMAIN, True, True, True),
        (Holding(RELEASED, 1), STOPPED, True, True, False),
        (Holding(GONE, 1), NO_DOMAIN, True, True, False),
        (Holding(GONE, 1), NO_DOMAIN, False, True, True),
        (Holding(SWITCHED, 1, 1), NO_DOMAIN, True, True, True),
    ],
)
def test_what_may_be_reported_as_carried_out(
    held: Holding, domain: DomainState, exists: bool, runs: bool, done: bool
) -> None:
    assert is_carried_out(held, domain, exists=exists, can_write=True, runs=runs) == done


def test_who_can_not_write_has_applied_nothing() -> None:
    assert not is_carried_out(Holding(PRESENT, 1, 1), RUNNING, exists=True, can_write=False, runs=True)
