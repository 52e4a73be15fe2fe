"""The loop and power: machines that crash, that are switched off from inside, and that ignore a shutdown."""

from dataclasses import replace

import pytest

from agent_kaktus.actual import Power
from agent_kaktus.errors import StepFailed
from kowa.v2 import instance_pb2
from tests.fleet_resources import content

from .loop_bench import APPLIED, FAILED, Bench, on_a_bench
from .slices import id_of


def test_a_machine_that_crashes_is_started_five_times_in_ten_minutes() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        for times in range(1, 6):
            bench.host.switch_off(id_of("web"), by_guest=False)
            await bench.converge(later=10)
            assert content(bench.report("web")).status.restarts == times
        bench.host.switch_off(id_of("web"), by_guest=False)
        await bench.converge(later=10)
        assert bench.report("web").outcome == FAILED
        await bench.converge(later=3600)
        assert bench.report("web").outcome == FAILED
        bench.feed.slice.instance("web", ("root",), ("nic",))
        await bench.converge()
        assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_a_guest_that_panics_is_started_again_and_counted_though_nobody_ended_it() -> None:
    """As after an outage of libvirt, which then has no event to act upon."""

    async def story(bench: Bench) -> None:
        await bench.converge()
        for times in range(1, 6):
            found = bench.host.domains[id_of("web")]
            bench.host.domains[found.id] = replace(found, power=Power.PANICKED)
            await bench.converge(later=10)
            assert bench.done[:2] == ["cut power web", "start web again"]
            assert content(bench.report("web")).status.restarts == times
        found = bench.host.domains[id_of("web")]
        bench.host.domains[found.id] = replace(found, power=Power.PANICKED)
        await bench.converge(later=10)
        assert bench.done == ["cut power web"]
        assert bench.report("web").outcome == FAILED

    on_a_bench(story)


def test_a_newer_agent_changes_no_instance_that_runs() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        found = bench.host.domains[id_of("web")]
        assert found.mark
        bench.host.domains[found.id] = replace(found, mark=replace(found.mark, version=1))
        bench.restart_agent()
        await bench.converge()
        assert "redefine web" in bench.done
        assert not {"start web", "start web again", "cut power web", "shutdown web"} & set(bench.done)
        report = bench.report("web")
        assert (report.outcome, list(content(report).meta.conditions)) == (APPLIED, [])

    on_a_bench(story)


def test_one_that_crashes_now_and_then_is_always_started_again() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        for _ in range(9):
            bench.host.switch_off(id_of("web"), by_guest=False)
            await bench.converge(later=200)
            assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_power_is_cut_after_a_minute() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.host.obeys = False
        bench.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        rest = await bench.converge()
        assert bench.done == ["shutdown web", "mark web stopping"]
        assert rest <= 30
        await bench.converge(later=59)
        assert bench.done == []
        await bench.converge(later=1)
        assert bench.done == ["cut power web"]
        assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_after_a_long_run_crashes_are_counted_anew() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        for _ in range(5):
            bench.host.switch_off(id_of("web"), by_guest=False)
            await bench.converge(later=10)
        for _ in range(3):
            await bench.converge(later=300)
        bench.host.switch_off(id_of("web"), by_guest=False)
        await bench.converge(later=86400)
        assert bench.report("web").outcome == APPLIED
        assert content(bench.report("web")).status.restarts == 1

    on_a_bench(story)


def test_a_crash_right_after_the_start_is_counted() -> None:
    async def story(bench: Bench) -> None:
        bench.after["resume web"] = lambda: bench.host.switch_off(id_of("web"), by_guest=False)
        for _ in range(9):
            await bench.converge(later=61)
        assert bench.report("web").outcome == FAILED
        assert "5 times within 10 minutes" in bench.report("web").message

    on_a_bench(story)


def test_a_guest_that_switches_itself_off_right_after_the_start_stays_off() -> None:
    async def story(bench: Bench) -> None:
        bench.after["resume web"] = lambda: bench.host.switch_off(id_of("web"), by_guest=True)
        await bench.converge()
        assert [condition.type for condition in content(bench.report("web")).meta.conditions] == ["GuestPoweredOff"]
        await bench.converge(later=60)
        assert bench.done == []

    on_a_bench(story)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_guest_that_shuts_down_late_is_started_again_when_it_is_to_run(restarts: bool) -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.host.obeys = False
        bench.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        await bench.converge()
        bench.feed.slice.instance("web", ("root",), ("nic",))
        if restarts:
            bench.restart_agent()
        await bench.converge(later=10)
        await bench.converge(later=60)
        assert bench.report("web").outcome == APPLIED
        bench.host.switch_off(id_of("web"), by_guest=True)
        await bench.converge(later=10)
        assert content(bench.report("web")).status == instance_pb2.InstanceStatus(
            power=instance_pb2.POWER_RUNNING, addresses=["10.9.0.2"]
        )
        bench.host.switch_off(id_of("web"), by_guest=True)
        await bench.converge(later=10)
        assert content(bench.report("web")).status.power == instance_pb2.POWER_STOPPED

    on_a_bench(story)


@pytest.mark.parametrize("step", ["shutdown web", "resume web", "filter taps of web"])
def test_power_is_cut_though_a_step_before_it_fails(step: str) -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.fails[step] = StepFailed("libvirt did not answer within 60 s")
        if step != "shutdown web":
            host = bench.host
            host.domains[id_of("web")] = replace(host.domains[id_of("web")], power=Power.PAUSED)
            host.filters.clear()
        bench.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        for _ in range(8):
            await bench.converge(later=20)
        assert bench.report("web").outcome == APPLIED
        assert content(bench.report("web")).status.power == instance_pb2.POWER_STOPPED

    on_a_bench(story)


def test_failing_to_cut_power_is_tried_again_with_pauses() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.fails |= {step: StepFailed("it hangs") for step in ("shutdown web", "cut power web")}
        bench.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        for _ in range(8):
            rest = await bench.converge(later=60)
        assert rest > 1

    on_a_bench(story)
