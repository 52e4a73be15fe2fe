"""A bench for the loop: a host of dictionaries, a feed and a clock that a test turns."""

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
    """A feed that a test sets."""

    def __init__(self, slice_: Slice) -> None:
        self.slice = slice_
        self.reports: dict[str, fleet_pb2.Report] = {}
        self.sent: list[fleet_pb2.Report] = []
        self._moved = asyncio.Event()
        self._came = asyncio.Event()

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        return self.slice.objects

    async def wait_for_change(self, limit: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._moved.wait()
        self._moved.clear()

    def move(self) -> None:
        self._moved.set()

    def report(self, report: fleet_pb2.Report) -> None:
        self.reports[report.id] = report
        self.sent.append(report)
        self._came.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():
                await self._came.wait()
                self._came.clear()


class BenchHost:
    """What the loop sees of a fake host, with looks that fail when a test wants it."""

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


class Bench:
    """All of it, with a clock that a test turns, and steps that fail when a test wants it."""

    def __init__(self, slice_: Slice, kinds: Kinds[Kind[Any]] = KINDS) -> None:
        self.kinds = kinds
        self.now = 1000.0
        self.feed = Feed(slice_)
        self.host = FakeHost(CONFIG)
        self.seen = BenchHost(self.host)
        self.fails: dict[str, Exception] = {}  # the text of a step -> what it raises
        self.after: dict[str, Callable[[], None]] = {}
        self.done: list[str] = []
        self.start_agent()

    def start_agent(self) -> None:
        memory, clock = self.host.memory, lambda: self.now
        self.loop = Loop(self.kinds, CONFIG, self.feed, self.seen, memory, clock)
        self.loop._carry_out = self._carry_out  # type: ignore[method-assign]

    def restart_agent(self) -> None:
        self.host.restart_agent()
        self.start_agent()

    async def converge(self, later: float = 0.0) -> float:
        self.now += later
        self.done.clear()
        return await self.loop.converge()

    def report(self, name: str) -> fleet_pb2.Report:
        return self.feed.reports[id_of(name)]

    async def _carry_out(self, step: Step) -> None:
        self.done.append(str(step))
        if str(step) in self.fails:
            raise self.fails[str(step)]
        await step.do(self.host)  # type: ignore[arg-type]
        if str(step) in self.after:
            self.after[str(step)]()


def two_instances() -> Slice:
    """web with a volume and an adapter, db with a volume."""
    slice_ = slice_with_network()
    slice_.volume("root")
    slice_.volume("data")
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root",), ("nic",))
    slice_.instance("db", ("data",))
    return slice_


def on_a_bench(story: Callable[[Bench], object]) -> None:
    """Runs a story told as a coroutine."""

    async def run() -> None:
        await story(Bench(two_instances()))  # type: ignore[misc]

    asyncio.run(run())
