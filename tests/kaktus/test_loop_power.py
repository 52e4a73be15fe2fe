"""The converge loop and power: crashes, guests that power themselves off, and guests that ignore a shutdown."""

from dataclasses import replace

import pytest

from agent_kaktus.actual import Power
from kowa.runtime.errors import StepFailed
from kowa.v2 import instance_pb2
from tests.fleet_resources import content

from .loop_harness import APPLIED, FAILED, LoopHarness, run_scenario
from .slices import id_of


def test_a_crashed_instance_is_restarted_five_times_in_ten_minutes() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        for times in range(1, 6):
            harness.host.switch_off(id_of("web"), by_guest=False)
            await harness.converge(elapsed=10)
            assert content(harness.report("web")).status.restarts == times
        harness.host.switch_off(id_of("web"), by_guest=False)
        await harness.converge(elapsed=10)
        assert harness.report("web").outcome == FAILED
        await harness.converge(elapsed=3600)
        assert harness.report("web").outcome == FAILED
        harness.feed.slice.instance("web", ("root",), ("nic",))
        await harness.converge()
        assert harness.report("web").outcome == APPLIED

    run_scenario(scenario)


def test_a_panicked_guest_found_by_the_agent_is_restarted_and_counted() -> None:
    """As after an outage of libvirt, which then sends no event to act upon."""

    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        for times in range(1, 6):
            found = harness.host.domains[id_of("web")]
            harness.host.domains[found.id] = replace(found, power=Power.PANICKED)
            await harness.converge(elapsed=10)
            assert harness.steps_done[:2] == ["cut power web", "start web again"]
            assert content(harness.report("web")).status.restarts == times
        found = harness.host.domains[id_of("web")]
        harness.host.domains[found.id] = replace(found, power=Power.PANICKED)
        await harness.converge(elapsed=10)
        assert harness.steps_done == ["cut power web"]
        assert harness.report("web").outcome == FAILED

    run_scenario(scenario)


def test_a_newer_agent_does_not_restart_running_instances() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        found = harness.host.domains[id_of("web")]
        assert found.mark
        harness.host.domains[found.id] = replace(found, mark=replace(found.mark, version=1))
        harness.restart_agent()
        await harness.converge()
        assert "redefine web" in harness.steps_done
        assert not {"start web", "start web again", "cut power web", "shutdown web"} & set(harness.steps_done)
        report = harness.report("web")
        assert (report.outcome, list(content(report).meta.conditions)) == (APPLIED, [])

    run_scenario(scenario)


def test_an_instance_that_crashes_rarely_is_always_restarted() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        for _ in range(9):
            harness.host.switch_off(id_of("web"), by_guest=False)
            await harness.converge(elapsed=200)
            assert harness.report("web").outcome == APPLIED

    run_scenario(scenario)


def test_power_is_cut_after_a_minute() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.host.obeys = False
        harness.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        rest = await harness.converge()
        assert harness.steps_done == ["shutdown web", "mark web stopping"]
        assert rest <= 30
        await harness.converge(elapsed=59)
        assert harness.steps_done == []
        await harness.converge(elapsed=1)
        assert harness.steps_done == ["cut power web"]
        assert harness.report("web").outcome == APPLIED

    run_scenario(scenario)


def test_after_a_long_run_crashes_are_counted_from_zero() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        for _ in range(5):
            harness.host.switch_off(id_of("web"), by_guest=False)
            await harness.converge(elapsed=10)
        for _ in range(3):
            await harness.converge(elapsed=300)
        harness.host.switch_off(id_of("web"), by_guest=False)
        await harness.converge(elapsed=86400)
        assert harness.report("web").outcome == APPLIED
        assert content(harness.report("web")).status.restarts == 1

    run_scenario(scenario)


def test_a_crash_right_after_the_start_is_counted() -> None:
    async def scenario(harness: LoopHarness) -> None:
        harness.after_step["resume web"] = lambda: harness.host.switch_off(id_of("web"), by_guest=False)
        for _ in range(9):
            await harness.converge(elapsed=61)
        assert harness.report("web").outcome == FAILED
        assert "5 times within 10 minutes" in harness.report("web").message

    run_scenario(scenario)


def test_a_guest_that_powers_itself_off_right_after_the_start_stays_off() -> None:
    async def scenario(harness: LoopHarness) -> None:
        harness.after_step["resume web"] = lambda: harness.host.switch_off(id_of("web"), by_guest=True)
        await harness.converge()
        assert [condition.type for condition in content(harness.report("web")).meta.conditions] == ["GuestPoweredOff"]
        await harness.converge(elapsed=60)
        assert harness.steps_done == []

    run_scenario(scenario)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_guest_that_shuts_down_late_is_started_again_when_it_is_to_run(restarts: bool) -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.host.obeys = False
        harness.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        await harness.converge()
        harness.feed.slice.instance("web", ("root",), ("nic",))
        if restarts:
            harness.restart_agent()
        await harness.converge(elapsed=10)
        await harness.converge(elapsed=60)
        assert harness.report("web").outcome == APPLIED
        harness.host.switch_off(id_of("web"), by_guest=True)
        await harness.converge(elapsed=10)
        assert content(harness.report("web")).status == instance_pb2.InstanceStatus(
            power=instance_pb2.POWER_RUNNING, addresses=["10.9.0.2"]
        )
        harness.host.switch_off(id_of("web"), by_guest=True)
        await harness.converge(elapsed=10)
        assert content(harness.report("web")).status.power == instance_pb2.POWER_STOPPED

    run_scenario(scenario)


@pytest.mark.parametrize("step", ["shutdown web", "resume web", "filter taps of web"])
def test_power_is_cut_although_a_step_before_it_fails(step: str) -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.step_errors[step] = StepFailed("libvirt did not answer within 60 s")
        if step != "shutdown web":
            host = harness.host
            host.domains[id_of("web")] = replace(host.domains[id_of("web")], power=Power.PAUSED)
            host.filters.clear()
        harness.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        for _ in range(8):
            await harness.converge(elapsed=20)
        assert harness.report("web").outcome == APPLIED
        assert content(harness.report("web")).status.power == instance_pb2.POWER_STOPPED

    run_scenario(scenario)


def test_cutting_power_is_retried_with_pauses() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.step_errors |= {step: StepFailed("it hangs") for step in ("shutdown web", "cut power web")}
        harness.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        for _ in range(8):
            rest = await harness.converge(elapsed=60)
        assert rest > 1

    run_scenario(scenario)
