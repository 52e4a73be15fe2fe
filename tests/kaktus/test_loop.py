"""The loop: what it does when a step fails, when libvirt is away, and what it tells meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent_kaktus.actual import Actual, Power
from agent_kaktus.converge import Loop
from agent_kaktus.failures import Away, GivenUp, StepFailed
from agent_kaktus.memory import MOST_ATTEMPTS, Memory
from agent_kaktus.network.guard import Guards
from agent_kaktus.report import GRAIN, Reports
from agent_kaktus.site import Site
from agent_kaktus.steps import Step
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2

from .model import Host
from .slices import Slice, id_of, small_house

SITE = Site(Path("/pools"), Path("/machines"))
APPLIED, WAITING, FAILED = fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_FAILED


class Feed:
    """A feed that a test sets."""

    def __init__(self, slice_: Slice) -> None:
        self.slice = slice_
        self.reports: dict[str, fleet_pb2.Report] = {}
        self.told: list[fleet_pb2.Report] = []
        self._moved = asyncio.Event()
        self._came = asyncio.Event()

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        return self.slice.objects

    async def moved(self, limit: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._moved.wait()
        self._moved.clear()

    def move(self) -> None:
        self._moved.set()

    def report(self, report: fleet_pb2.Report) -> None:
        self.reports[report.id] = report
        self.told.append(report)
        self._came.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():
                await self._came.wait()
                self._came.clear()


class Hands:
    """A host of dictionaries behind the loop, with steps that fail when told to."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.fails: dict[str, Exception] = {}
        self.away = ""
        self.stumbles: Exception | None = None
        self.after: dict[str, Callable[[], None]] = {}
        self.did: list[str] = []

    async def look(self, _: Guards) -> Actual:
        if self.away:
            raise Away(self.away)
        if self.stumbles:
            raise self.stumbles
        return self.host.look()

    async def do(self, step: Step, _: Guards) -> None:
        self.did.append(str(step))
        if str(step) in self.fails:
            raise self.fails[str(step)]
        self.host.do(step)
        if str(step) in self.after:
            self.after[str(step)]()


class Bench:
    """All of it, with a clock that a test turns."""

    def __init__(self, slice_: Slice) -> None:
        self.now = 1000.0
        self.feed = Feed(slice_)
        self.hands = Hands(Host(SITE))
        self.start_agent()

    def start_agent(self) -> None:
        memory = self.hands.host.memory
        self.loop = Loop(SITE, self.feed, self.hands, memory, Reports("1.0"), clock=lambda: self.now)

    def restart_agent(self) -> None:
        self.hands.host.restart_agent()
        self.start_agent()

    async def converge(self, later: float = 0.0) -> float:
        self.now += later
        self.hands.did.clear()
        return await self.loop.converge()

    def report(self, name: str) -> fleet_pb2.Report:
        return self.feed.reports[id_of(name)]


def house() -> Slice:
    slice_ = small_house()
    slice_.volume("root")
    slice_.volume("data")
    slice_.adapter("card", "10.9.0.2")
    slice_.instance("web", ("root",), ("card",))
    slice_.instance("db", ("data",))
    return slice_


def on_a_bench(story: Callable[[Bench], object]) -> None:
    """Runs a story told as a coroutine."""

    async def run() -> None:
        await story(Bench(house()))  # type: ignore[misc]

    asyncio.run(run())


def test_all_is_applied_and_told() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        assert all(report.outcome == APPLIED for report in bench.feed.reports.values())
        assert bench.report("web").observed_generation == 1
        assert bench.report("web").resource.instance.status == instance_pb2.InstanceStatus(
            power=instance_pb2.POWER_RUNNING, addresses=["10.9.0.2"]
        )
        assert bench.report("host").resource.kaktus.status.version == "1.0"
        told = dict(bench.feed.reports)
        bench.feed.told.clear()
        await bench.converge(later=30)
        assert bench.hands.did == []
        assert {report.id: report for report in bench.feed.told} == told

    on_a_bench(story)


def test_a_step_that_fails_holds_up_its_object_only_and_is_tried_again() -> None:
    async def story(bench: Bench) -> None:
        bench.hands.fails["start web"] = StepFailed("no memory")
        rest = await bench.converge()
        assert rest <= 1.0
        assert bench.report("db").outcome == APPLIED
        assert bench.report("web").outcome == WAITING
        assert bench.report("web").message == "tries again: start web: no memory"
        await bench.converge(later=0.5)
        assert bench.hands.did == []
        for _ in range(MOST_ATTEMPTS - 1):
            await bench.converge(later=60)
            assert bench.hands.did == ["start web"]
        assert bench.report("web").outcome == FAILED
        bench.hands.fails.clear()
        await bench.converge(later=60)
        assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_what_is_not_foreseen_ends_at_the_edge() -> None:
    async def story(bench: Bench) -> None:
        bench.hands.fails["create volume root"] = RuntimeError("what?")
        await bench.converge()
        assert bench.report("db").outcome == APPLIED
        assert bench.report("root").message == "tries again: create volume root: what?"

    on_a_bench(story)


def test_what_never_works_holds_up_nothing_for_ever() -> None:
    async def story(bench: Bench) -> None:
        bench.hands.fails["start web"] = StepFailed("no memory")
        await bench.converge()
        bench.hands.host.memory.troubles[id_of("web")].attempts = 5000
        bench.hands.host.switch_off(id_of("db"), left=False)
        await bench.converge(later=61)
        assert bench.report("web").outcome == FAILED
        assert bench.report("db").resource.instance.status.power == instance_pb2.POWER_RUNNING
        await bench.converge(later=61)
        assert bench.hands.did == ["start web"]

    on_a_bench(story)


def test_what_goes_wrong_around_a_step_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(_: Memory, id_: str, steps: str) -> int:
        if id_ == id_of("root"):
            raise RuntimeError(steps)
        return 1

    async def story(bench: Bench) -> None:
        monkeypatch.setattr(Memory, "note_done", spoilt)
        await bench.converge()
        assert bench.report("db").outcome == APPLIED

    on_a_bench(story)


def test_what_is_given_up_stays_so_until_its_generation_moves() -> None:
    async def story(bench: Bench) -> None:
        bench.hands.fails["create volume root"] = GivenUp("no such driver")
        await bench.converge()
        await bench.converge(later=3600)
        assert bench.hands.did == []
        assert (bench.report("root").outcome, bench.report("root").message) == (FAILED, "no such driver")
        assert bench.report("root").observed_generation == 1
        bench.hands.fails.clear()
        bench.feed.slice.volume("root")
        await bench.converge()
        assert bench.report("root").outcome == APPLIED

    on_a_bench(story)


def test_while_libvirt_is_away_everything_waits() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.away = "libvirt went away"
        bench.feed.slice.gone("db")
        await bench.converge()
        assert bench.report("web").outcome == WAITING
        assert bench.report("web").message == "libvirt went away"
        assert bench.report("web").observed_generation == 1
        assert bench.report("db").gone is False
        assert bench.report("region").outcome == APPLIED
        assert bench.report("web").resource.instance.status.power == instance_pb2.POWER_UNSPECIFIED
        assert bench.report("pool").resource.storage_pool.status.capacity == 1 << 40
        bench.hands.away = ""
        await bench.converge()
        assert bench.report("web").outcome == APPLIED
        assert bench.report("db").gone is True

    on_a_bench(story)


def test_a_machine_that_falls_over_is_started_five_times_in_ten_minutes() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        for times in range(1, 6):
            bench.hands.host.switch_off(id_of("web"), left=False)
            await bench.converge(later=10)
            assert bench.report("web").resource.instance.status.restarts == times
        bench.hands.host.switch_off(id_of("web"), left=False)
        await bench.converge(later=10)
        assert bench.report("web").outcome == FAILED
        await bench.converge(later=3600)
        assert bench.report("web").outcome == FAILED
        bench.feed.slice.instance("web", ("root",), ("card",))
        await bench.converge()
        assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_one_that_falls_over_now_and_then_is_always_started_again() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        for _ in range(9):
            bench.hands.host.switch_off(id_of("web"), left=False)
            await bench.converge(later=200)
            assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_power_is_cut_after_a_minute() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.host.obeys = False
        bench.feed.slice.instance("web", ("root",), ("card",), power=instance_pb2.POWER_STOPPED)
        rest = await bench.converge()
        assert bench.hands.did == ["shutdown web", "note web stops"]
        assert rest <= 30
        await bench.converge(later=59)
        assert bench.hands.did == []
        await bench.converge(later=1)
        assert bench.hands.did == ["cut power web"]
        assert bench.report("web").outcome == APPLIED

    on_a_bench(story)


def test_what_ran_well_for_long_begins_anew() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        for _ in range(5):
            bench.hands.host.switch_off(id_of("web"), left=False)
            await bench.converge(later=10)
        for _ in range(3):
            await bench.converge(later=300)
        bench.hands.host.switch_off(id_of("web"), left=False)
        await bench.converge(later=86400)
        assert bench.report("web").outcome == APPLIED
        assert bench.report("web").resource.instance.status.restarts == 1

    on_a_bench(story)


def test_one_that_falls_over_as_soon_as_it_runs_counts() -> None:
    async def story(bench: Bench) -> None:
        bench.hands.after["resume web"] = lambda: bench.hands.host.switch_off(id_of("web"), left=False)
        for _ in range(9):
            await bench.converge(later=61)
        assert bench.report("web").outcome == FAILED
        assert "5 times within 10 minutes" in bench.report("web").message

    on_a_bench(story)


def test_a_guest_that_leaves_as_soon_as_it_runs_stays_off() -> None:
    async def story(bench: Bench) -> None:
        bench.hands.after["resume web"] = lambda: bench.hands.host.switch_off(id_of("web"), left=True)
        await bench.converge()
        assert [condition.type for condition in bench.report("web").resource.instance.meta.conditions] == [
            "GuestPoweredOff"
        ]
        await bench.converge(later=60)
        assert bench.hands.did == []

    on_a_bench(story)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_guest_that_obeys_late_is_started_again_when_it_shall_run(restarts: bool) -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.host.obeys = False
        bench.feed.slice.instance("web", ("root",), ("card",), power=instance_pb2.POWER_STOPPED)
        await bench.converge()
        bench.feed.slice.instance("web", ("root",), ("card",))
        if restarts:
            bench.restart_agent()
        await bench.converge(later=10)
        await bench.converge(later=60)
        assert bench.report("web").outcome == APPLIED
        bench.hands.host.switch_off(id_of("web"), left=True)
        await bench.converge(later=10)
        assert bench.report("web").resource.instance.status == instance_pb2.InstanceStatus(
            power=instance_pb2.POWER_RUNNING, addresses=["10.9.0.2"]
        )
        bench.hands.host.switch_off(id_of("web"), left=True)
        await bench.converge(later=10)
        assert bench.report("web").resource.instance.status.power == instance_pb2.POWER_STOPPED

    on_a_bench(story)


@pytest.mark.parametrize("step", ["shutdown web", "resume web", "guard web"])
def test_power_is_cut_though_it_can_not_be_asked(step: str) -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.fails[step] = StepFailed("libvirt did not answer within 60 s")
        if step != "shutdown web":
            host = bench.hands.host
            host.domains[id_of("web")] = replace(host.domains[id_of("web")], power=Power.PAUSED)
            host.guards.clear()
        bench.feed.slice.instance("web", ("root",), ("card",), power=instance_pb2.POWER_STOPPED)
        for _ in range(8):
            await bench.converge(later=20)
        assert bench.report("web").outcome == APPLIED
        assert bench.report("web").resource.instance.status.power == instance_pb2.POWER_STOPPED

    on_a_bench(story)


def test_who_can_not_be_cut_is_not_looked_at_without_a_pause() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.fails |= {step: StepFailed("it hangs") for step in ("shutdown web", "cut power web")}
        bench.feed.slice.instance("web", ("root",), ("card",), power=instance_pb2.POWER_STOPPED)
        for _ in range(8):
            rest = await bench.converge(later=60)
        assert rest > 1

    on_a_bench(story)


def test_what_a_look_stumbles_over_is_told_as_away() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.stumbles = ValueError("no such number")
        await bench.converge()
        assert (bench.report("web").outcome, bench.report("web").message) == (WAITING, "no such number")

    on_a_bench(story)


def test_what_a_volume_takes_is_told_coarsely() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        images = bench.hands.host.images
        for allocation in (GRAIN, GRAIN + 1, 2 * GRAIN - 1):
            images[id_of("root")] = replace(images[id_of("root")], allocation=allocation)
            await bench.converge()
            assert bench.report("root").resource.volume.status.allocation == GRAIN

    on_a_bench(story)


def test_what_repeats_itself_slows_down() -> None:
    async def story(bench: Bench) -> None:
        await bench.converge()
        bench.hands.host.guards = Forgetful()
        await bench.converge()
        assert len(bench.hands.did) < 10
        assert bench.report("web").message == "tries again: does not come to rest: guard web"

    on_a_bench(story)


class Forgetful(dict[str, str]):
    """Rules that somebody removes as soon as they are put."""

    def __setitem__(self, key: str, value: str) -> None:
        """Gone at once."""


def test_it_runs_until_cancelled_and_wakes_when_something_moves() -> None:
    async def story(bench: Bench) -> None:
        running = asyncio.create_task(bench.loop.run())
        await bench.feed.until(lambda: id_of("web") in bench.feed.reports and bench.report("web").outcome == APPLIED)
        bench.feed.slice.gone("web")
        bench.feed.move()
        await bench.feed.until(lambda: bench.report("web").gone)
        bench.hands.host.switch_off(id_of("db"), left=False)
        bench.loop.wake()
        await bench.feed.until(lambda: bench.report("db").resource.instance.status.restarts == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()

    on_a_bench(story)
