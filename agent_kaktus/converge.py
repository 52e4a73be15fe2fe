"""The loop: look, plan, do, until nothing is left to do; then wait for something to move."""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from agent_kaktus import steps
from agent_kaktus.actual import Actual, Power
from agent_kaktus.desired import Desired, Template, Thing
from agent_kaktus.failures import GivenUp, StepFailed
from agent_kaktus.memory import LONGEST_PAUSE, MOST_REPEATS, Memory, Trouble
from agent_kaktus.network.guard import Guards
from agent_kaktus.parse import parse
from agent_kaktus.plan import plan
from agent_kaktus.report import Reports
from agent_kaktus.site import Site
from agent_kaktus.steps import Step
from agent_kaktus.view import Verdict, View
from kowa.runtime import crashpoint
from kowa.runtime.feed import Feed, Refused
from kowa.v2 import instance_pb2

LOOK_EVERY = 30.0  # seconds, though nothing is heard
LOOK_AGAIN = 1.0  # seconds, while nothing can be seen
AT_ONCE = 4  # objects worked on
MOST_ROUNDS = 50  # of look, plan and do before others may speak

log = structlog.get_logger()


class Host(Protocol):
    """What the loop needs of a host; `Hands` are a real one's."""

    async def look(self, guards: Guards) -> Actual: ...

    async def do(self, step: Step, guards: Guards) -> None: ...


class Loop:
    """Converges until cancelled."""

    def __init__(
        self,
        site: Site,
        feed: Feed,
        host: Host,
        memory: Memory,
        reports: Reports,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._feed = feed
        self._host = host
        self._memory = memory
        self._reports = reports
        self._clock = clock
        self._wake = asyncio.Event()
        self._eventloop = asyncio.get_running_loop()
        self._view: View | None = None
        self.desired = Desired()  # as last looked at

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._wake.clear()
                await self._rest(await self._converge_safely())

    def wake(self) -> None:
        """Looks again soon. May be called in any thread, and after the end."""
        if not self._eventloop.is_closed():
            self._eventloop.call_soon_threadsafe(self._wake.set)

    def import_ended(self, template: Template, reason: str) -> None:
        if reason:
            self._memory.given_up[template.id, template.generation] = reason
        self._wake.set()

    def import_progressed(self, template: Template) -> None:
        if self._view is not None and self._view.desired.templates.get(template.id) == template:
            percent = self._memory.importing[template.id]
            self._feed.report(self._reports.one(self._view, template, Verdict(works=f"{percent} % imported")))

    async def _listen(self) -> None:
        while True:
            await self._feed.moved(LOOK_EVERY)
            self._wake.set()

    async def _rest(self, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _converge_safely(self) -> float:
        """The edge: whatever goes wrong with a look ends here, and is tried again."""
        try:
            return await self.converge()
        except Refused as why:  # a stored slice that this version does not take; Kahuna sends a better one
            log.warning("slice.refused", reason=str(why))
            return LOOK_EVERY
        except Exception:
            log.exception("converge.failed")
            return LOOK_AGAIN

    async def converge(self) -> float:
        """Returns for how many seconds nothing is due."""
        for _ in range(MOST_ROUNDS):
            desired = self.desired = parse(self._feed.desired())
            if desired.host is None:
                return LOOK_EVERY
            guards = self._guards_of(desired.host.id)
            try:
                actual = await self._host.look(guards)
            except Exception as why:
                if not isinstance(why, StepFailed | OSError):
                    log.exception("look.failed")
                self._report_away(desired, str(why))
                return LOOK_AGAIN
            view = self._observe(desired, actual)
            due = self._decide(view)
            if not due:
                return min(LOOK_EVERY, self._memory.next_deadline(view.now, self._site.shutdown_limit))
            await self._do_all(due, guards)
        return LOOK_AGAIN

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one loop a process
    def _guards_of(self, kaktus: str) -> Guards:
        return Guards(kaktus)

    def _observe(self, desired: Desired, actual: Actual) -> View:
        """Forgets what is no longer so."""
        memory, now = self._memory, self._clock()
        memory.keep_only({thing.id for thing in desired.things()})
        for id_, asked in list(memory.stopping.items()):
            found = actual.domains.get(id_)
            is_off = found is None or found.power is Power.OFF
            is_wanted = desired.machines[id_].power != instance_pb2.POWER_STOPPED
            if is_off or (is_wanted and now - asked >= self._site.shutdown_limit):
                del memory.stopping[id_]
        for id_, machine in desired.machines.items():
            if id_ in actual.domains and actual.domains[id_].power is Power.RUNNING:
                memory.note_running(machine, now)
        return View(self._site, desired, actual, memory, now)

    def _decide(self, view: View) -> dict[Thing, Verdict]:
        """What is to be done now. Reports all, also what is not."""
        self._view = view
        result = plan(view)
        for id_, verdict in result.verdicts.items():
            if not verdict.steps:
                view.memory.settle(id_)
        for report in self._reports.all(view, result):
            self._feed.report(report)
        return {
            thing: verdict
            for thing in view.desired.things()
            if (verdict := result.verdicts[thing.id]).steps and not view.memory.is_paused(thing.id, view.now)
        }

    def _report_away(self, desired: Desired, reason: str) -> None:
        for report in self._reports.away(View(self._site, desired, Actual(), self._memory), reason):
            self._feed.report(report)

    async def _do_all(self, due: Mapping[Thing, Verdict], guards: Guards) -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for thing, verdict in due.items():
                group.create_task(self._do_for(thing, verdict, guards, gate))

    async def _do_for(self, thing: Thing, verdict: Verdict, guards: Guards, gate: asyncio.Semaphore) -> None:
        """The edge of what is done for one object: whatever goes wrong there, also around its steps, stays there."""
        async with gate:
            try:
                await self._do_steps(thing, verdict, guards)
            except Exception as why:
                log.exception("steps.failed", id=thing.id)
                self._memory.troubles[thing.id] = Trouble(str(why), 1, self._clock() + LONGEST_PAUSE)

    async def _do_steps(self, thing: Thing, verdict: Verdict, guards: Guards) -> None:
        self._begin(verdict)
        for step in verdict.steps:
            try:
                await self._host.do(step, guards)
            except GivenUp as why:
                self._memory.given_up[thing.id, thing.generation] = str(why)
                return
            except Exception as why:  # noqa: BLE001 - told with its trace
                self._fail(thing, step, why)
                return
            self._note(step)
            log.info("step.done", id=thing.id, step=str(step))
            crashpoint.reach(f"kaktus.{step.done}")
        if self._memory.note_done(thing.id, str(verdict)) > MOST_REPEATS:
            self._memory.note_trouble(thing.id, f"does not come to rest: {verdict}", self._clock())

    def _fail(self, thing: Thing, step: Step, why: Exception) -> None:
        is_known = isinstance(why, StepFailed | OSError)
        trouble = self._memory.note_trouble(thing.id, f"{step}: {why}", self._clock())
        told = {"id": thing.id, "step": str(step), "reason": str(why), "attempts": trouble.attempts}
        log.warning("step.failed", **told, exc_info=not is_known)

    def _begin(self, verdict: Verdict) -> None:
        """The time of a machine that can't be asked to stop runs out like that of one that does not listen."""
        for step in verdict.steps:
            if isinstance(step, steps.Shutdown | steps.Resume) and step.machine.power == instance_pb2.POWER_STOPPED:
                self._memory.stopping.setdefault(step.machine.id, self._clock())

    def _note(self, step: Step) -> None:
        if isinstance(step, steps.Start) and step.again:
            self._memory.note_restart(step.machine, self._clock())
