"""The loop: what it does when a step fails, when libvirt is away, and what it reports meanwhile."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from agent_kaktus.converge import OBSERVE_INTERVAL_S
from agent_kaktus.errors import PermanentFailure, StepFailed
from agent_kaktus.memory import MAX_ATTEMPTS, Memory
from agent_kaktus.plan import SPACE_UNIT_BYTES, Verdict, View
from agent_kaktus.storage.volume import Volume, Volumes
from kowa.runtime.settings import VERSION
from kowa.v2 import instance_pb2
from tests.fleet_resources import content

from .loop_bench import APPLIED, CONFIG, FAILED, WAITING, Bench, on_a_bench
from .slices import id_of


def test_all_is_applied_and_reported() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        assert all(report.outcome == APPLIED for report in bench.feed.reports.values())
        assert bench.report("web").observed_generation == 1
        assert content(bench.report("web")).status == instance_pb2.InstanceStatus(
            power=instance_pb2.POWER_RUNNING, addresses=["10.9.0.2"]
        )
        assert content(bench.report("host")).status.version == VERSION
        reports = dict(bench.feed.reports)
        bench.feed.sent.clear()
        await bench.converge(later=30)
        assert bench.done == []
        assert {report.id: report for report in bench.feed.sent} == reports

    on_a_bench(story)


def test_a_step_that_fails_delays_its_object_only_and_is_tried_again() -> None:
    async def story(bench: Bench) -> None:
        bench.fails["start web"] = StepFailed("no memory")
        rest = await bench.converge()
        assert rest <= 1.0
        assert bench.report("db").outcome == APPLIED
        assert bench.report("web").outcome == WAITING
        assert bench.report("web").message == "tries again: start web: no memory"
        await bench.converge(later=0.5)
        assert bench.done == []
        for _ in range(MAX_ATTEMPTS - 1):
            await bench.converge(later=60)
            assert bench.done == ["start web"]
        assert bench.report("web").outcome == FAILED
        bench.fails.clear()
        await bench.converge(later=60)
        assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_an_unexpected_error_of_a_step_ends_nothing_else() -> None:
    async def story(bench: Bench) -> None:
        bench.fails["create volume root"] = RuntimeError("what?")
        await bench.converge()
        assert bench.report("db").outcome == APPLIED
        assert bench.report("root").message == "tries again: create volume root: what?"

    on_a_bench(story)


def test_an_object_whose_plan_or_status_fails_does_so_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(self: Volumes, view: View, wanted: Volume) -> Verdict:
        if wanted.name == "data":
            raise KeyError("what?")
        return plan_volume(self, view, wanted)

    async def story(bench: Bench) -> None:
        await bench.converge()
        images = bench.host.images
        images[id_of("root")] = replace(images[id_of("root")], allocation=1 << 70)
        bench.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        monkeypatch.setattr(Volumes, "plan", plan)
        assert await bench.converge() == OBSERVE_INTERVAL_S
        assert bench.report("data").outcome == FAILED
        assert bench.report("data").message == "can't be planned, see the agent's log: KeyError('what?')"
        assert bench.report("root").outcome == FAILED
        assert bench.report("root").message.startswith("its status can't be reported, see the agent's log: ValueError(")
        assert bench.report("web").outcome == APPLIED
        assert not bench.host.domains[id_of("web")].is_on

    plan_volume = Volumes.plan
    on_a_bench(story)


def test_a_definition_that_is_not_xml_fails_its_instance_only() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.loop.settings = structs.replace(CONFIG, pools=Path("/pools\x01"))
        await bench.converge()
        assert bench.report("web").outcome == WAITING
        assert bench.report("web").message.startswith("tries again: redefine web: not well-formed")
        assert bench.report("root").outcome == APPLIED
        bench.feed.slice.instance("web", ("root",), ("nic",), power=instance_pb2.POWER_STOPPED)
        await bench.converge(later=60)
        assert not bench.host.domains[id_of("web")].is_on

    on_a_bench(story)


def test_what_never_succeeds_delays_nothing_for_ever() -> None:
    async def story(bench: Bench) -> None:
        bench.fails["start web"] = StepFailed("no memory")
        await bench.converge()
        bench.host.memory.failures[id_of("web")].attempts = 5000
        bench.host.switch_off(id_of("db"), by_guest=False)
        await bench.converge(later=61)
        assert bench.report("web").outcome == FAILED
        assert content(bench.report("db")).status.power == instance_pb2.POWER_RUNNING
        await bench.converge(later=61)
        assert bench.done == ["start web"]

    on_a_bench(story)


def test_an_error_around_a_step_delays_no_other_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(_: Memory, id_: str, steps: str) -> int:
        if id_ == id_of("root"):
            raise RuntimeError(steps)
        return 1

    async def story(bench: Bench) -> None:
        monkeypatch.setattr(Memory, "count_repeats", spoilt)
        await bench.converge()
        assert bench.report("db").outcome == APPLIED

    on_a_bench(story)


def test_what_is_given_up_stays_so_until_its_generation_changes() -> None:
    async def story(bench: Bench) -> None:
        bench.fails["create volume root"] = PermanentFailure("no such driver")
        await bench.converge()
        await bench.converge(later=3600)
        assert bench.done == []
        assert (bench.report("root").outcome, bench.report("root").message) == (FAILED, "no such driver")
        assert bench.report("root").observed_generation == 1
        bench.fails.clear()
        bench.feed.slice.volume("root")
        await bench.converge()
        assert bench.report("root").outcome == APPLIED

    on_a_bench(story)


def test_while_libvirt_is_away_everything_waits() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.seen.unavailable = "libvirt went away"
        bench.feed.slice.gone("db")
        await bench.converge()
        assert bench.report("web").outcome == WAITING
        assert bench.report("web").message == "libvirt went away"
        assert bench.report("web").observed_generation == 1
        assert bench.report("db").gone is False
        assert bench.report("region").outcome == APPLIED
        assert content(bench.report("web")).status.power == instance_pb2.POWER_UNSPECIFIED
        assert content(bench.report("pool")).status.capacity == 1 << 40
        bench.seen.unavailable = ""
        await bench.converge()
        assert bench.report("web").outcome == APPLIED
        assert bench.report("db").gone is True

    on_a_bench(story)


def test_what_fails_while_the_host_is_observed_is_reported_as_unavailable() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.seen.crash = ValueError("no such number")
        await bench.converge()
        assert (bench.report("web").outcome, bench.report("web").message) == (WAITING, "no such number")

    on_a_bench(story)


def test_what_a_volume_takes_is_reported_in_large_units() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        images = bench.host.images
        for allocation in (SPACE_UNIT_BYTES, SPACE_UNIT_BYTES + 1, 2 * SPACE_UNIT_BYTES - 1):
            images[id_of("root")] = replace(images[id_of("root")], allocation=allocation)
            await bench.converge()
            assert content(bench.report("root")).status.allocation == SPACE_UNIT_BYTES

    on_a_bench(story)


def test_steps_that_are_needed_again_and_again_slow_down() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.host.filters = Forgetful()
        await bench.converge()
        assert len(bench.done) < 10
        assert bench.report("web").message == "tries again: does not come to rest: filter taps of web"

    on_a_bench(story)


class Forgetful(dict[str, str]):
    """Rules that somebody removes as soon as they are put."""

    def __setitem__(self, key: str, value: str) -> None:
        """Gone at once."""


def test_it_runs_until_cancelled_and_wakes_when_something_changes() -> None:
    async def story(bench: Bench) -> None:
        running = asyncio.create_task(bench.loop.run())
        await bench.feed.until(lambda: id_of("web") in bench.feed.reports and bench.report("web").outcome == APPLIED)
        bench.feed.slice.gone("web")
        bench.feed.move()
        await bench.feed.until(lambda: bench.report("web").gone)
        bench.host.switch_off(id_of("db"), by_guest=False)
        bench.loop.wake()
        await bench.feed.until(lambda: content(bench.report("db")).status.restarts == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    on_a_bench(story)
