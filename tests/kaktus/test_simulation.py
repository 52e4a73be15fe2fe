"""Any changes, failures and durations: all objects come to rest, and no step runs beside one that excludes it.

Each seed is a history in virtual time; it is in the name of the test that fails.
"""

import asyncio
import random
from collections.abc import Callable

import pytest

from agent_kaktus.compute.desired import Instance
from agent_kaktus.kinds import KINDS
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.errors import StepFailed
from kowa.runtime.verdict import Step
from kowa.v2 import instance_pb2
from tests import virtual_time

from .slices import Slice, id_of
from .timed_agent import HANGS_S, TimedAgent

SEEDS = range(40)
STORM_S = 240.0
REST_S = 600.0  # for all to come to rest afterwards
POWERS = (instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED)
INSTANCES = {"web": (("root", "logs"), ("nic",)), "db": (("data",), ("nic2",)), "batch": (("data",), ())}
VOLUMES = ("root", "logs", "data")
ADAPTERS = {"nic": "10.9.0.2", "nic2": "10.9.0.3"}


class Simulation(TimedAgent):
    """An agent whose steps fail, take long and hang as the seed says, and whose slice changes all the time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.is_calm = False
        self.faults: list[str] = []
        slice_ = Slice()
        slice_.host()
        super().__init__(slice_)

    async def work(self, step: Step) -> None:
        self._check(step)
        before, after = self._duration(), self._duration()
        if not self.is_calm and self.random.random() < 0.1:
            await asyncio.sleep(HANGS_S)
            raise StepFailed("no answer")
        await asyncio.sleep(before)
        try:
            await step.do(self.host)
        except StepFailed:
            raise
        except Exception as error:
            self.faults.append(f"{step}: {error!r}")
            raise
        await asyncio.sleep(after)
        if not self.is_calm and self.random.random() < 0.15:
            raise StepFailed("no luck")

    def _duration(self) -> float:
        return self.random.choice([0.0, 0.1, 0.5]) if self.is_calm else self.random.choice([0.0, 0.1, 0.1, 1.0, 5.0])

    def _check(self, step: Step) -> None:
        """An object's steps are not beside another of its own, nor a removal beside a step that uses the object."""
        *others, mine = [done for done in self.done if done.ended is None]
        for other in others:
            if other.wanted.id == mine.wanted.id:
                self.faults.append(f"{step} beside {other.text}")
            if mine.wanted.gone and mine.wanted.id in other.wanted.references:
                self.faults.append(f"{step} beside {other.text}, which uses it")
            sent = self.feed.slice.objects.get(other.wanted.id)
            is_revived = sent is not None and not sent.gone
            if other.wanted.gone and other.wanted.id in mine.wanted.references and is_revived:
                self.faults.append(f"{step} beside {other.text}, which it uses")

    def change_something(self) -> None:
        slice_ = self.feed.slice
        name, (volumes, adapters) = self.random.choice(list(INSTANCES.items()))
        changes: list[Callable[[], object]] = [
            lambda: slice_.instance(name, volumes, adapters, power=self.random.choice(POWERS)),
            lambda: slice_.instance(name, volumes, adapters, power=self.random.choice(POWERS)),
            lambda: slice_.volume(self.random.choice(VOLUMES), self.random.choice([1, 2, 3]) << 20),
            lambda: slice_.adapter(nic := self.random.choice(list(ADAPTERS)), ADAPTERS[nic]),
            self._put_network,
            self._delete_something,
            self._forget_gone,
            self._crash_something,
            self._lose_filters,
        ]
        self.observation_s = self.random.choice([0.0, 0.05, 0.6])
        self.change(self.random.choice(changes))

    def _put_network(self) -> None:
        self.feed.slice.pool()
        self.feed.slice.vnet()
        self.feed.slice.subnet()

    def _delete_something(self) -> None:
        present = [name for name in (*INSTANCES, *VOLUMES, *ADAPTERS) if id_of(name) in self.feed.slice.objects]
        if present:
            self.feed.slice.gone(self.random.choice(present))

    def _forget_gone(self) -> None:
        """Removes what the agent has reported gone, as Kahuna does."""
        objects = self.feed.slice.objects
        for id_ in [id_ for id_, report in self.feed.reports.items() if report.gone]:
            if (
                id_ in objects
                and objects[id_].gone
                and objects[id_].generation == self.feed.reports[id_].observed_generation
            ):
                del objects[id_]

    def _crash_something(self) -> None:
        running = [id_ for id_, found in self.host.domains.items() if found.is_on]
        if running:
            self.host.switch_off(self.random.choice(running), by_guest=self.random.random() < 0.5)
            self.reconciler.wake()

    def _lose_filters(self) -> None:
        """Not while steps are under way, which may have put them for a guest that is about to run."""
        if not list(self.reconciler.runs):
            self.host.filters.clear()

    def unrest(self) -> list[str]:
        """The objects that are not at rest: applied, gone, or with a reason why not."""
        desired, unrest = KINDS.parse(self.feed.slice.objects), []
        for wanted in desired:
            report = self.feed.reports.get(wanted.id)
            missing = [id_ for id_ in wanted.references if id_ not in desired.by_id or desired.by_id[id_].gone]
            blocked = bool(missing) or (wanted.gone and bool(desired.referring(wanted.id)))
            has_reason = report is not None and bool(report.message)
            crashed = isinstance(wanted, Instance) and report is not None and "stopped by itself" in report.message
            is_done = report is not None and report.outcome == fleet_pb2.OUTCOME_APPLIED
            is_done = is_done and report is not None and report.observed_generation == wanted.generation
            is_done = is_done and report is not None and report.gone == wanted.gone
            if not is_done and not (has_reason and (blocked or crashed or self._is_blocked(report))):
                unrest.append(f"{wanted.name}: {report}")
        return unrest

    def _is_blocked(self, report: fleet_pb2.Report | None) -> bool:
        """Whether an object waits for another one, or can't become as wanted, such as smaller."""
        return report is not None and report.message.startswith(("waits for ", "it has "))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_comes_to_rest(seed: int) -> None:
    async def run() -> None:
        simulation = Simulation(seed)
        simulation._put_network()
        for _ in range(3):  # agents, each of which is killed
            simulation.start()
            async with simulation.running():
                end = simulation.clock() + STORM_S / 3
                while simulation.clock() < end:
                    simulation.change_something()
                    await asyncio.sleep(simulation.random.choice([0.0, 0.3, 3.0, 10.0]))
        simulation.is_calm, simulation.observation_s = True, 0.05
        simulation.start()
        async with simulation.running():
            await asyncio.sleep(REST_S)
            assert not simulation.unrest(), simulation.unrest()
            assert not list(simulation.reconciler.runs)
            quiet = simulation.clock()
            await asyncio.sleep(REST_S)
            assert not simulation.steps(quiet)
        assert not simulation.faults

    virtual_time.run(run())
