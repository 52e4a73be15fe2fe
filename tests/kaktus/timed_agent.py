"""A reconciler that runs in virtual time on a fake host, whose steps and observations take as long as a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from agent_kaktus.actual import Actual
from agent_kaktus.kinds import KINDS
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import DesiredObject
from kowa.runtime.errors import StepFailed
from kowa.runtime.reconciler import Reconciler
from kowa.runtime.verdict import Step

from .fake_host import FakeHost
from .loop_harness import CONFIG, Feed
from .slices import Slice, id_of

HANGS_S = 60.0  # a step that hangs is given up after this time, as a call of libvirt


@dataclass(slots=True)
class Done:
    """A step that was carried out, or is under way."""

    text: str
    wanted: DesiredObject
    began: float
    ended: float | None = None


class TimedAgent:
    """Steps and observations take no time unless the test says so."""

    def __init__(self, slice_: Slice) -> None:
        self.feed = Feed(slice_)
        self.host = FakeHost(CONFIG)
        self.hanging: set[str] = set()  # texts of steps
        self.step_s = 0.0
        self.observation_s = 0.0  # before and after the host is looked at
        self.unseen: dict[str, str] = {}
        self.done: list[Done] = []
        self.clock = asyncio.get_running_loop().time
        self.start()

    def start(self) -> None:
        """Starts an agent, which knows nothing of an earlier one."""
        self.host.restart_agent()
        self.reconciler = Reconciler("kaktus", KINDS, CONFIG, self.feed, self, clock=self.clock, do=self.carry_out)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the reconciler meanwhile."""
        running = asyncio.create_task(self.reconciler.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def observe(self, node: str) -> Actual:
        await asyncio.sleep(self.observation_s)
        actual = self.host.observe()
        await asyncio.sleep(self.observation_s)
        unseen = {id_: reason for id_, reason in self.unseen.items() if id_ in actual.domains}
        return Actual(**{**{name: getattr(actual, name) for name in Actual.__slots__}, "unseen": unseen})

    async def carry_out(self, step: Step, _: object) -> None:
        wanted = next(run.wanted for run in self.reconciler.runs if run.step is step)
        done = Done(str(step), wanted, self.clock())
        self.done.append(done)
        try:
            await self.work(step)
        finally:
            done.ended = self.clock()

    async def work(self, step: Step) -> None:
        """Does a step's work, or hangs."""
        if str(step) in self.hanging:
            await asyncio.sleep(HANGS_S)
            raise StepFailed(f"libvirt did not answer within {HANGS_S:g} s")
        await asyncio.sleep(self.step_s)
        await step.do(self.host)

    def change(self, *changes: Callable[[], object]) -> None:
        """Changes the slice, as Kahuna does."""
        for change in changes:
            change()
        self.feed.notify_change()

    async def until(self, condition: Callable[[], bool], limit_s: float) -> float:
        """Waits until a condition is true. Returns the seconds that it took."""
        began = self.clock()
        while not condition():
            assert self.clock() - began <= limit_s, self.describe()
            await asyncio.sleep(0.01)
        return self.clock() - began

    def report(self, name: str) -> fleet_pb2.Report:
        return self.feed.reports[id_of(name)]

    def is_applied(self, name: str) -> bool:
        """Whether an object's present generation is reported as applied."""
        report, sent = self.feed.reports.get(id_of(name)), self.feed.slice.objects[id_of(name)]
        is_applied = report is not None and report.outcome == fleet_pb2.OUTCOME_APPLIED
        return is_applied and report is not None and report.observed_generation == sent.generation

    def steps(self, since: float = 0.0) -> list[str]:
        """The steps that began since a time."""
        return [done.text for done in self.done if done.began >= since]

    def describe(self) -> str:
        """The last report of each object that is not applied."""
        names = {sent.id: name for name, sent in self.named().items()}
        reports = [report for report in self.feed.reports.values() if report.outcome != fleet_pb2.OUTCOME_APPLIED]
        return "; ".join(f"{names.get(report.id, report.id)}: {report.message}" for report in reports)

    def named(self) -> dict[str, fleet_pb2.Object]:
        parsed = KINDS.parse(self.feed.slice.objects)
        return {wanted.name: self.feed.slice.objects[wanted.id] for wanted in parsed}
