"""Steps that take long or hang: nothing else waits for them, and what is told about them is true."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent_kaktus.actual import Domain
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.errors import StepFailed
from kowa.runtime.notes import MAX_ATTEMPTS
from kowa.runtime.runs import MAX_PARALLEL, SLOW_STEP_S
from kowa.v2 import instance_pb2
from tests import virtual_time

from .loop_harness import CONFIG, LoopHarness, run_scenario, two_instances
from .slices import id_of
from .timed_agent import HANGS_S, TimedAgent

STOPPED, SUSPENDED = instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED
WORKING, WAITING, FAILED = fleet_pb2.OUTCOME_WORKING, fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_FAILED


def run_both(scenario: Callable[[TimedAgent], Awaitable[None]]) -> None:
    """Runs a scenario with web and db, which run."""

    async def run() -> None:
        agent = TimedAgent(two_instances())
        async with agent.running():
            await agent.until(lambda: agent.is_applied("web") and agent.is_applied("db"), 5)
            await scenario(agent)

    virtual_time.run(run())


def web(agent: TimedAgent, power: instance_pb2.Power) -> Callable[[], object]:
    return lambda: agent.feed.slice.instance("web", ("root",), ("nic",), power=power)


def db(agent: TimedAgent, power: instance_pb2.Power) -> Callable[[], object]:
    return lambda: agent.feed.slice.instance("db", ("data",), power=power)


def test_a_step_that_hangs_delays_no_other_instance() -> None:
    async def scenario(agent: TimedAgent) -> None:
        agent.hanging.add("suspend web")
        agent.change(web(agent, SUSPENDED))
        await agent.until(lambda: "suspend web" in agent.steps(), 1)
        agent.change(db(agent, STOPPED))
        assert await agent.until(lambda: agent.is_applied("db"), HANGS_S) < 0.5
        assert "cut power db" not in agent.steps()

    run_both(scenario)


def test_a_stopping_agent_begins_nothing_more() -> None:
    async def scenario(agent: TimedAgent) -> None:
        names = [f"extra{number}" for number in range(2 * MAX_PARALLEL)]
        agent.step_s = 1.0
        agent.change(*(lambda name=name: agent.feed.slice.volume(name) for name in names))
        await agent.until(lambda: sum("create volume extra" in step for step in agent.steps()) == MAX_PARALLEL, 1)

    async def run() -> None:
        agent = TimedAgent(two_instances())
        async with agent.running():
            await agent.until(lambda: agent.is_applied("web") and agent.is_applied("db"), 5)
            await scenario(agent)
            begun = agent.steps()
        await asyncio.sleep(10)
        assert agent.steps() == begun

    virtual_time.run(run())


def test_many_steps_that_hang_delay_another_one_by_two_seconds_at_most() -> None:
    async def scenario(agent: TimedAgent) -> None:
        names = [f"extra{number}" for number in range(2 * MAX_PARALLEL)]
        agent.hanging |= {f"create volume {name}" for name in names}
        agent.change(*(lambda name=name: agent.feed.slice.volume(name) for name in names))
        await agent.until(lambda: sum("create volume extra" in step for step in agent.steps()) == MAX_PARALLEL, 1)
        agent.change(db(agent, STOPPED))
        assert await agent.until(lambda: agent.is_applied("db"), HANGS_S) <= 2 * SLOW_STEP_S + 0.1

    run_both(scenario)


def test_an_object_is_reported_as_working_while_its_step_hangs() -> None:
    async def scenario(agent: TimedAgent) -> None:
        agent.hanging.add("grow volume data live")
        agent.change(lambda: agent.feed.slice.volume("data", 1 << 30))
        await agent.until(lambda: agent.report("data").outcome == WORKING, 1)
        await agent.until(lambda: agent.report("data").message == "grow volume data live", 3)
        assert agent.report("data").observed_generation == 1
        await agent.until(lambda: agent.report("data").outcome == WAITING, HANGS_S)
        assert agent.steps().count("grow volume data live") == 1

    run_both(scenario)


def test_a_stop_after_a_suspend_that_hangs_is_never_told_failed_and_comes_within_its_time() -> None:
    async def scenario(agent: TimedAgent) -> None:
        agent.hanging |= {"suspend web", "shutdown web"}
        agent.change(web(agent, SUSPENDED))
        await agent.until(lambda: "suspend web" in agent.steps(), 1)
        agent.feed.sent.clear()
        agent.change(web(agent, STOPPED))
        assert await agent.until(lambda: agent.is_applied("web"), 2 * HANGS_S) <= CONFIG.shutdown_limit + 2
        told = [report for report in agent.feed.sent if report.id == id_of("web")]
        assert FAILED not in {report.outcome for report in told}
        messages = {report.message for report in told}
        assert "suspend web, of an earlier change; then shutdown web, mark web stopping" in messages
        assert agent.steps()[-1] == "cut power web"

    run_both(scenario)


def test_deleting_an_instance_whose_step_hangs_cuts_its_power_at_once() -> None:
    async def scenario(agent: TimedAgent) -> None:
        agent.hanging.add("suspend web")
        agent.change(web(agent, SUSPENDED))
        await agent.until(lambda: "suspend web" in agent.steps(), 1)
        agent.change(lambda: agent.feed.slice.gone("web"))
        assert await agent.until(lambda: agent.report("web").gone, HANGS_S) <= SLOW_STEP_S + 0.1

    run_both(scenario)


def test_a_disk_stays_while_the_start_of_its_instance_hangs() -> None:
    """Nothing on the host shows yet that the instance will use it."""

    async def run() -> None:
        slice_ = two_instances()
        agent = TimedAgent(slice_)
        agent.hanging.add("define web")
        async with agent.running():
            await agent.until(lambda: "define web" in agent.steps() and agent.is_applied("db"), 5)
            agent.change(lambda: slice_.gone("root"))
            await agent.until(lambda: agent.report("root").outcome == WAITING, 5)
            assert agent.report("root").message == "waits for web: define web"
            began = agent.clock()
            await agent.until(lambda: agent.report("root").gone, 2 * HANGS_S)
            assert agent.clock() - began > HANGS_S - 5
            assert agent.steps(began)[0] == "remove volume root"

    virtual_time.run(run())


def test_a_network_is_set_up_while_an_instance_on_it_hangs() -> None:
    async def scenario(agent: TimedAgent) -> None:
        agent.hanging.add("suspend web")
        agent.change(web(agent, SUSPENDED))
        await agent.until(lambda: "suspend web" in agent.steps(), 1)
        agent.host.services.clear()
        agent.reconciler.wake()
        assert await agent.until(lambda: "serve metadata on vnet" in agent.steps(agent.clock() - 1), HANGS_S) < 0.5

    run_both(scenario)


def test_a_plan_is_not_carried_out_if_it_is_older_than_the_end_of_its_objects_last_step() -> None:
    async def run() -> None:
        agent = TimedAgent(two_instances())
        agent.observation_s, agent.step_s = 0.7, 0.4  # steps end while the host is observed
        async with agent.running():
            await agent.until(lambda: agent.is_applied("web") and agent.is_applied("db"), 30)
            steps = agent.steps()
            assert len(steps) == len(set(steps)), "a step was repeated though it had been done"

    virtual_time.run(run())


def test_a_domain_that_can_not_be_observed_delays_no_other_object_and_keeps_its_disk() -> None:
    async def scenario(agent: TimedAgent) -> None:
        agent.unseen[id_of("web")] = "libvirt does not answer about its domain"
        agent.change(db(agent, STOPPED), web(agent, STOPPED), lambda: agent.feed.slice.gone("root"))
        await agent.until(lambda: agent.is_applied("db"), 1)
        report = agent.report("web")
        assert (report.outcome, report.message) == (WAITING, "libvirt does not answer about its domain")
        assert agent.report("root").message.startswith("waits for domain kowa-")
        agent.unseen.clear()
        await agent.until(lambda: "shutdown web" in agent.steps(), 31)

    run_both(scenario)


def test_a_disk_stays_while_a_domain_that_was_never_observed_may_have_it() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        unknown = Domain("unknown", "ghost", unseen="libvirt does not answer about its domain", is_unknown=True)
        harness.host.foreign_domains["unknown"] = unknown
        harness.feed.slice.gone("web", "root", "nic")
        await harness.converge()
        assert harness.report("web").gone
        assert harness.report("root").message == "waits for domain ghost, whose disk it is"
        assert harness.report("nic").message == "waits for domain ghost, whose adapter it is"
        harness.host.foreign_domains.clear()
        await harness.converge()
        assert harness.report("root").gone

    run_scenario(scenario)


@pytest.mark.parametrize("failures", [1, MAX_ATTEMPTS + 2])
def test_a_new_generation_starts_without_failures_and_without_a_pause(failures: int) -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.step_errors["suspend web"] = StepFailed("no answer")
        harness.feed.slice.instance("web", ("root",), ("nic",), power=SUSPENDED)
        for _ in range(failures):
            await harness.converge(elapsed=60)
        harness.step_errors["shutdown web"] = StepFailed("no answer")
        harness.feed.slice.instance("web", ("root",), ("nic",), power=STOPPED)
        await harness.converge()
        assert harness.steps_done == ["shutdown web"]
        assert harness.report("web").outcome == WAITING

    run_scenario(scenario)


def test_nothing_has_failed_while_its_power_is_still_to_be_cut() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.step_errors |= {step: StepFailed("no answer") for step in ("shutdown web", "cut power web")}
        harness.feed.slice.instance("web", ("root",), ("nic",), power=STOPPED)
        for _ in range(15):
            await harness.converge(elapsed=3.9)
            assert harness.report("web").outcome == WAITING
        assert harness.report("web").message == (
            "tries again: shutdown web: no answer; then its power is cut 60 s after it was to stop"
        )
        await harness.converge(elapsed=5.5)
        assert harness.steps_done == ["cut power web"], "delayed by the pause of another step"
        assert harness.report("web").message == "tries again: cut power web: no answer"
        for _ in range(MAX_ATTEMPTS):
            await harness.converge(elapsed=60)
        assert harness.report("web").outcome == FAILED

    run_scenario(scenario)
