"""The converge loop: failing steps, an unavailable libvirt, and the reports meanwhile."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from agent_kaktus.kind import View
from agent_kaktus.storage.storage_pool import SPACE_UNIT_BYTES
from agent_kaktus.storage.volume import Volume, Volumes
from kowa.runtime.desired import DesiredObject
from kowa.runtime.errors import PermanentFailure, StepFailed
from kowa.runtime.notes import MAX_ATTEMPTS, Notes
from kowa.runtime.reconciler import OBSERVE_INTERVAL_S
from kowa.runtime.settings import VERSION
from kowa.runtime.verdict import Verdict
from kowa.v2 import instance_pb2
from tests.fleet_resources import content

from .loop_harness import APPLIED, CONFIG, FAILED, WAITING, LoopHarness, run_scenario
from .slices import id_of


def test_all_is_applied_and_reported() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        assert all(report.outcome == APPLIED for report in harness.feed.reports.values())
        assert harness.report("web").observed_generation == 1
        assert content(harness.report("web")).status == instance_pb2.InstanceStatus(
            power=instance_pb2.POWER_RUNNING, addresses=["10.9.0.2"]
        )
        assert content(harness.report("host")).status.version == VERSION
        reports = dict(harness.feed.reports)
        harness.feed.sent.clear()
        await harness.converge(elapsed=30)
        assert harness.steps_done == []
        assert {report.id: report for report in harness.feed.sent} == reports

    run_scenario(scenario)


def test_a_failed_step_delays_only_its_object_and_is_retried() -> None:
    async def scenario(harness: LoopHarness) -> None:
        harness.step_errors["start web"] = StepFailed("no memory")
        rest = await harness.converge()
        assert rest <= 1.0
        assert harness.report("db").outcome == APPLIED
        assert harness.report("web").outcome == WAITING
        assert harness.report("web").message == "tries again: start web: no memory"
        await harness.converge(elapsed=0.5)
        assert harness.steps_done == []
        for _ in range(MAX_ATTEMPTS - 1):
            await harness.converge(elapsed=60)
            assert harness.steps_done == ["start web"]
        assert harness.report("web").outcome == FAILED
        harness.step_errors.clear()
        await harness.converge(elapsed=60)
        assert harness.report("web").outcome == APPLIED

    run_scenario(scenario)


def test_an_unexpected_error_of_a_step_stops_no_other_object() -> None:
    async def scenario(harness: LoopHarness) -> None:
        harness.step_errors["create volume root"] = RuntimeError("what?")
        await harness.converge()
        assert harness.report("db").outcome == APPLIED
        assert harness.report("root").message == "tries again: create volume root: what?"

    run_scenario(scenario)


def test_an_error_in_a_plan_or_status_fails_only_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(self: Volumes, view: View, wanted: Volume) -> Verdict:
        if wanted.name == "data":
            raise KeyError("what?")
        return plan_volume(self, view, wanted)

    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        images = harness.host.images
        images[id_of("root")] = replace(images[id_of("root")], allocation=1 << 70)
        harness.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        monkeypatch.setattr(Volumes, "plan", plan)
        assert await harness.converge() == OBSERVE_INTERVAL_S
        assert harness.report("data").outcome == FAILED
        assert harness.report("data").message == "can't be planned, see the agent's log: KeyError('what?')"
        assert harness.report("root").outcome == FAILED
        message = harness.report("root").message
        assert message.startswith("its status can't be reported, see the agent's log: ValueError(")
        assert harness.report("web").outcome == APPLIED
        assert not harness.host.domains[id_of("web")].is_on

    plan_volume = Volumes.plan
    run_scenario(scenario)


def test_a_definition_that_is_not_xml_fails_only_its_instance() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.reconciler.settings = structs.replace(CONFIG, pools=Path("/pools\x01"))
        await harness.converge()
        assert harness.report("web").outcome == WAITING
        assert harness.report("web").message.startswith("tries again: redefine web: not well-formed")
        assert harness.report("root").outcome == APPLIED
        harness.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        await harness.converge(elapsed=60)
        assert not harness.host.domains[id_of("web")].is_on

    run_scenario(scenario)


def test_a_step_that_always_fails_delays_no_other_object() -> None:
    async def scenario(harness: LoopHarness) -> None:
        harness.step_errors["start web"] = StepFailed("no memory")
        await harness.converge()
        harness.host.notes.failures[id_of("web")].attempts = 5000
        harness.host.switch_off(id_of("db"), by_guest=False)
        await harness.converge(elapsed=61)
        assert harness.report("web").outcome == FAILED
        assert content(harness.report("db")).status.power == instance_pb2.POWER_RUNNING
        await harness.converge(elapsed=61)
        assert harness.steps_done == ["start web"]

    run_scenario(scenario)


def test_an_error_outside_a_step_delays_no_other_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def count_repeats(_: Notes, wanted: DesiredObject, steps: str) -> int:
        if wanted.name == "root":
            raise RuntimeError(steps)
        return 1

    async def scenario(harness: LoopHarness) -> None:
        monkeypatch.setattr(Notes, "count_repeats", count_repeats)
        await harness.converge()
        assert harness.report("db").outcome == APPLIED

    run_scenario(scenario)


def test_a_permanent_failure_lasts_until_the_generation_changes() -> None:
    async def scenario(harness: LoopHarness) -> None:
        harness.step_errors["create volume root"] = PermanentFailure("no such driver")
        await harness.converge()
        await harness.converge(elapsed=3600)
        assert harness.steps_done == []
        assert (harness.report("root").outcome, harness.report("root").message) == (FAILED, "no such driver")
        assert harness.report("root").observed_generation == 1
        harness.step_errors.clear()
        harness.feed.slice.volume("root")
        await harness.converge()
        assert harness.report("root").outcome == APPLIED

    run_scenario(scenario)


def test_all_objects_wait_while_libvirt_is_unavailable() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.observed_host.unavailable = "libvirt went away"
        harness.feed.slice.gone("db")
        await harness.converge()
        assert harness.report("web").outcome == WAITING
        assert harness.report("web").message == "libvirt went away"
        assert harness.report("web").observed_generation == 1
        assert harness.report("db").gone is False
        assert harness.report("region").outcome == APPLIED
        assert content(harness.report("web")).status.power == instance_pb2.POWER_UNSPECIFIED
        assert content(harness.report("pool")).status.capacity == 1 << 40
        harness.observed_host.unavailable = ""
        await harness.converge()
        assert harness.report("web").outcome == APPLIED
        assert harness.report("db").gone is True

    run_scenario(scenario)


def test_objects_wait_while_observing_the_host_fails() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.observed_host.crash = ValueError("no such number")
        await harness.converge()
        assert (harness.report("web").outcome, harness.report("web").message) == (WAITING, "no such number")

    run_scenario(scenario)


def test_the_allocation_of_a_volume_is_reported_in_large_units() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        images = harness.host.images
        for allocation in (SPACE_UNIT_BYTES, SPACE_UNIT_BYTES + 1, 2 * SPACE_UNIT_BYTES - 1):
            images[id_of("root")] = replace(images[id_of("root")], allocation=allocation)
            await harness.converge()
            assert content(harness.report("root")).status.allocation == SPACE_UNIT_BYTES

    run_scenario(scenario)


def test_steps_that_are_needed_repeatedly_slow_down() -> None:
    async def scenario(harness: LoopHarness) -> None:
        await harness.converge()
        harness.host.filters = ForgetfulDict()
        await harness.converge()
        assert len(harness.steps_done) < 10
        assert harness.report("web").message == "tries again: does not come to rest: filter taps of web"

    run_scenario(scenario)


class ForgetfulDict(dict[str, str]):
    """Filters that are removed as soon as they are put."""

    def __setitem__(self, key: str, value: str) -> None:
        """Stores nothing."""


def test_the_loop_runs_until_cancelled_and_wakes_on_changes() -> None:
    async def scenario(harness: LoopHarness) -> None:
        running = asyncio.create_task(harness.reconciler.run())
        reports = harness.feed.reports
        await harness.feed.until(lambda: id_of("web") in reports and harness.report("web").outcome == APPLIED)
        harness.feed.slice.gone("web")
        harness.feed.notify_change()
        await harness.feed.until(lambda: harness.report("web").gone)
        harness.host.switch_off(id_of("db"), by_guest=False)
        harness.reconciler.wake()
        await harness.feed.until(lambda: content(harness.report("db")).status.restarts == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    run_scenario(scenario)
