"""A harness for tests of the agent's reconciler: a fake host, a feed and a clock that the test sets."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from agent_kaktus.actual import Actual
from agent_kaktus.errors import LibvirtUnavailable
from agent_kaktus.kind import Kinds
from agent_kaktus.kinds import KINDS
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.reconciler import Reconciler
from kowa.runtime.verdict import Step
from tests.kaktus.settings_of import settings_of

from .fake_host import FakeHost
from .slices import Slice, id_of, slice_with_network

CONFIG = settings_of(Path("/pools"), Path("/instances"))
MAX_ROUNDS = 50
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
    """A reconciler with its feed, host and clock; steps can be made to fail."""

    def __init__(self, slice_: Slice, kinds: Kinds = KINDS) -> None:
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
        self.reconciler = Reconciler(
            "kaktus",
            self.kinds,
            CONFIG,
            self.feed,
            self.observed_host,
            self.host.notes,
            clock=lambda: self.now,
            do=self._carry_out,
        )

    def restart_agent(self) -> None:
        self.host.restart_agent()
        self.start_agent()

    async def converge(self, elapsed: float = 0.0) -> float:
        """Reconciles until no step is due. Returns the seconds until the next round."""
        self.now += elapsed
        self.steps_done.clear()
        for _ in range(MAX_ROUNDS):
            pause, done = await self.reconciler.reconcile(), len(self.steps_done)
            await self.reconciler.settled()
            if len(self.steps_done) == done:
                return pause
        raise AssertionError(f"does not come to rest: {self.steps_done[-5:]}")

    def report(self, name: str) -> fleet_pb2.Report:
        return self.feed.reports[id_of(name)]

    async def _carry_out(self, step: Step, _: object) -> None:
        self.steps_done.append(str(step))
        if str(step) in self.step_errors:
            raise self.step_errors[str(step)]
        await step.do(self.host)
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
