"""A harness for tests of the converge loop: a fake host, a feed and a clock that the test sets."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent_kaktus.actual import Actual
from agent_kaktus.converge import Loop
from agent_kaktus.errors import LibvirtUnavailable
from agent_kaktus.kinds import KINDS
from agent_kaktus.plan import Kind, Step
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import Kinds
from tests.kaktus.settings_of import settings_of

from .fake_host import FakeHost
from .slices import Slice, id_of, slice_with_network

CONFIG = settings_of(Path("/pools"), Path("/instances"))
APPLIED, WAITING, FAILED = fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_FAILED


class Feed:
    """A feed whose slice the test changes, and which keeps the reports."""

    def __init__(self, slice_: Slice) -> None:
        self.slice = slice_
        self.reports: dict[str, fleet_pb2.Report] = {}
        self.sent: list[fleet_pb2.Report] = []
        self._changed = asyncio.Event()
        self._reported = asyncio.Event()

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        return self.slice.objects

    async def wait_for_change(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()

    def notify_change(self) -> None:
        self._changed.set()

    def report(self, report: fleet_pb2.Report) -> None:
        self.reports[report.id] = report
        self.sent.append(report)
        self._reported.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await self._reported.wait()
                self._reported.clear()


class ObservedHost:
    """A fake host whose `observe` can be made to fail."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.unavailable = ""
        self.crash: Exception | None = None

    async def observe(self, node: str) -> Actual:
        assert node == id_of("host")
        if self.unavailable:
            raise LibvirtUnavailable(self.unavailable)
        if self.crash:
            raise self.crash
        return self.host.observe()


class LoopHarness:
    """A loop with its feed, host and clock; steps can be made to fail."""

    def __init__(self, slice_: Slice, kinds: Kinds[Kind[Any]] = KINDS) -> None:
        self.kinds = kinds
        self.now = 1000.0
        self.feed = Feed(slice_)
        self.host = FakeHost(CONFIG)
        self.observed_host = ObservedHost(self.host)
        self.step_errors: dict[str, Exception] = {}  # text of a step -> the error it raises
        self.after_step: dict[str, Callable[[], None]] = {}  # text of a step -> a hook after it
        self.steps_done: list[str] = []
        self.start_agent()

    def start_agent(self) -> None:
        notes, clock = self.host.notes, lambda: self.now
        self.loop = Loop(self.kinds, CONFIG, self.feed, self.observed_host, notes, clock)
        self.loop._carry_out = self._carry_out  # type: ignore[method-assign]

    def restart_agent(self) -> None:
        self.host.restart_agent()
        self.start_agent()

    async def converge(self, elapsed: float = 0.0) -> float:
        self.now += elapsed
        self.steps_done.clear()
        return await self.loop.converge()

    def report(self, name: str) -> fleet_pb2.Report:
        return self.feed.reports[id_of(name)]

    async def _carry_out(self, step: Step) -> None:
        self.steps_done.append(str(step))
        if str(step) in self.step_errors:
            raise self.step_errors[str(step)]
        await step.do(self.host)  # type: ignore[arg-type]
        if str(step) in self.after_step:
            self.after_step[str(step)]()


def two_instances() -> Slice:
    """web with a volume and an adapter, db with a volume."""
    slice_ = slice_with_network()
    slice_.volume("root")
    slice_.volume("data")
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root",), ("nic",))
    slice_.instance("db", ("data",))
    return slice_


def run_scenario(scenario: Callable[[LoopHarness], object]) -> None:
    """Runs a scenario, a coroutine function, on a new harness with `two_instances`."""

    async def run() -> None:
        await scenario(LoopHarness(two_instances()))  # type: ignore[misc]

    asyncio.run(run())
