"""Twenty seconds of silence in the midst of each workflow: the agent frozen, Kahuna frozen, the network cut."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.stack import consistency
from tests.stack.site import Site
from tests.stack.stack import Stack
from tests.stack.workflows import Condition, InstanceWorkflows
from tests.waiting import until

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

SILENCE_S = 20.0  # seconds
BACK = 60.0  # seconds to dial in again, and to end
Silence = Callable[[Stack], AbstractContextManager[None]]


@pytest.fixture
def lives(site: Site) -> Iterator[list[InstanceWorkflows]]:
    """Machines that run, for all that needs one; and one to come. Nothing of them afterwards."""
    made = [InstanceWorkflows(site, f"m{number}", f"10.9.{number}.0/24", site.idle) for number in range(4)]
    for came in [life.create() for life in made[1:]]:
        until(came, what="it runs")
    consistency.await_equal(site.stack)
    yield made
    for life in made[:-1]:
        until(life.delete(), what="it is gone")
    consistency.await_equal(site.stack)


def frozen_agent(stack: Stack) -> AbstractContextManager[None]:
    return stack.agent.frozen()


def frozen_kahuna(stack: Stack) -> AbstractContextManager[None]:
    return stack.kahuna.frozen()


def cut_network(stack: Stack) -> AbstractContextManager[None]:
    return stack.cut_off()


@pytest.mark.parametrize("silence", [frozen_agent, frozen_kahuna, cut_network])
def test_each_workflow_outlives_a_silence(lives: list[InstanceWorkflows], silence: Silence) -> None:
    new, larger, off, gone = lives
    stack = new.site.stack
    running = stack.host.guest_pids()
    stack.agent.forget_trace()
    coming: list[Condition] = [larger.resize(), off.stop(), gone.delete(), new.create()]
    until(lambda: len(stack.agent.passed()) > 2, what="the agent is in the midst of it")
    with silence(stack):
        time.sleep(SILENCE_S)  # that long is the promise
        assert len(consistency.processes(stack)) == len(set(consistency.processes(stack)))
    for came in coming:
        until(came, timeout=BACK, what="what was asked for")
    consistency.await_equal(stack, BACK)
    assert set(stack.host.guest_pids()) & set(running), "a machine that nobody touched has been started anew"
