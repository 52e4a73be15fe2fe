"""A bench for the loop: a host of dictionaries, a feed and a clock that a test turns."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from agent_kaktus.actual import Actual
from agent_kaktus.converge import Loop
from agent_kaktus.failures import Away
from agent_kaktus.network.guard import Guards
from agent_kaktus.report import Reports
from agent_kaktus.site import Site
from agent_kaktus.steps import Step
from kowa.fleet.v1 import fleet_pb2

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
