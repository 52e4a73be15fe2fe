"""Twenty seconds of silence during each workflow: the agent frozen, Kahuna frozen, the network cut."""

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

SILENCE_S = 20.0
RECOVERY_TIMEOUT_S = 60.0  # to connect again, and to end the workflow
Silence = Callable[[Stack], AbstractContextManager[None]]


@pytest.fixture
def instances(site: Site) -> Iterator[list[InstanceWorkflows]]:
    """An instance that is not created yet, and three that run. Nothing of them is left afterwards."""
    instances = [InstanceWorkflows(site, f"m{number}", f"10.9.{number}.0/24", site.idle) for number in range(4)]
    for is_running in [instance.create() for instance in instances[1:]]:
        until(is_running, what="it runs")
    consistency.await_equal(site.stack)
    yield instances
    for instance in instances[:-1]:
        until(instance.delete(), what="it is gone")
    consistency.await_equal(site.stack)


def frozen_agent(stack: Stack) -> AbstractContextManager[None]:
    return stack.agent.frozen()


def frozen_kahuna(stack: Stack) -> AbstractContextManager[None]:
    return stack.kahuna.frozen()


def cut_network(stack: Stack) -> AbstractContextManager[None]:
    return stack.cut_off()


@pytest.mark.parametrize("silence", [frozen_agent, frozen_kahuna, cut_network])
def test_each_workflow_outlives_a_silence(instances: list[InstanceWorkflows], silence: Silence) -> None:
    to_create, to_resize, to_stop, to_delete = instances
    stack = to_create.site.stack
    running = stack.host.guest_pids()
    stack.agent.forget_trace()
    conditions: list[Condition] = [to_resize.resize(), to_stop.stop(), to_delete.delete(), to_create.create()]
    until(lambda: len(stack.agent.passed()) > 2, what="the agent is at work")
    with silence(stack):
        time.sleep(SILENCE_S)  # that long is the promise
        assert len(consistency.processes(stack)) == len(set(consistency.processes(stack)))
    for condition in conditions:
        until(condition, timeout=RECOVERY_TIMEOUT_S, what="the end of each workflow")
    consistency.await_equal(stack, RECOVERY_TIMEOUT_S)
    assert set(stack.host.guest_pids()) & set(running), "an untouched instance has been started again"
