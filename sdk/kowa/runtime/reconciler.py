"""The reconciler: observes the host, plans, carries out steps until none is left, and reports to Kahuna meanwhile.

It names no kind. A round observes and plans all objects; steps are carried out beside the rounds, and each end of an
object's steps starts the next round. While they are under way, an object is reported as working: its next steps, also
those of a newer generation, follow when they have ended or failed, except a fallback, which replaces a step that hangs.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import structlog
from google.protobuf.message import Message

from kowa.runtime.crashpoint import crash_point
from kowa.runtime.desired import Desired, DesiredObject
from kowa.runtime.errors import PermanentFailure, StepFailed
from kowa.runtime.feed import Feed, Refused
from kowa.runtime.kind import A, Kinds, S, View
from kowa.runtime.notes import LONGEST_RETRY_S, MAX_REPEATS, Failure, Notes
from kowa.runtime.outcome import report_of, unseen_report_of
from kowa.runtime.plan import fill_node_status, plan
from kowa.runtime.runs import SLOW_STEP_S, Run, Runs
from kowa.runtime.tasks import Tasks
from kowa.runtime.verdict import Step, Verdict

OBSERVE_INTERVAL_S = 30.0  # when no event comes
RETRY_INTERVAL_S = 1.0  # while the host can't be observed

log = structlog.get_logger()


@dataclass
class Reconciler(Generic[S, A]):
    """Reconciles a host, which has the method `observe(node)` and is passed to each step."""

    name: str  # of the agent, with which its crash points begin
    kinds: Kinds[S, A]
    settings: S
    feed: Feed
    host: Any
    notes: Notes = field(default_factory=Notes)
    clock: Callable[[], float] = time.monotonic  # in seconds
    do: Callable[[Step, Any], Coroutine[Any, Any, None]] = lambda step, host: step.do(host)

    def __post_init__(self) -> None:
        self.desired = Desired()  # of the last plan
        self._view: View[S, A] | None = None
        self._verdicts: dict[str, Verdict] = {}  # of the last plan
        self._reported: dict[str, Message] = {}  # the latest resource of each object that was observed
        self.runs = Runs()
        self._queue: list[Run] = []  # of the last plan, those without room first
        self._due_since: dict[str, float] = {}
        self._tasks = Tasks()
        self._wake = asyncio.Event()
        self._eventloop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                while True:
                    self._wake.clear()
                    pause = await self._reconcile_safely()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
        finally:
            self._queue.clear()  # a run that ends would begin the next one
            await self._tasks.close()

    def wake(self) -> None:
        """Observes again soon. May be called in any thread, and after the end."""
        if not self._eventloop.is_closed():
            self._eventloop.call_soon_threadsafe(self._wake.set)

    def background_ended(self, wanted: DesiredObject, reason: str) -> None:
        """Background work for an object has ended, with a reason if it can't succeed."""
        if reason:
            self.notes.given_up[wanted.id, wanted.generation] = reason
        self._wake.set()

    def background_progressed(self, wanted: DesiredObject, working: str) -> None:
        """Reports the progress of background work for an object."""
        if self._view is not None and self._view.desired.by_id.get(wanted.id) == wanted:
            self._report(self._view, wanted, Verdict(working=working))

    async def settled(self) -> None:
        """Returns when no steps are under way."""
        await asyncio.gather(*(run.task for run in self.runs if run.task), return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            await self.feed.wait_for_change(OBSERVE_INTERVAL_S)
            self._wake.set()

    async def _reconcile_safely(self) -> float:
        """Error boundary: any error outside of steps is logged, and the host is observed again later."""
        try:
            return await self.reconcile()
        except Refused as error:  # a stored slice that this version can't parse; Kahuna sends a new one
            log.warning("slice.refused", reason=str(error))
            return OBSERVE_INTERVAL_S
        except Exception:
            log.exception("reconcile.failed")
            return RETRY_INTERVAL_S

    async def reconcile(self) -> float:
        """One round: observes, plans, and begins what can be done now. Returns the seconds until the next one."""
        desired = self.desired = self.kinds.parse(self.feed.desired())
        if desired.node is None:
            return OBSERVE_INTERVAL_S
        observation = self.runs.ended
        try:
            actual: A = await self.host.observe(desired.node.id)
            by_kind = {kind.value: await kind.observe(self.host) for kind in self.kinds}
        except Exception as error:
            if not isinstance(error, StepFailed | OSError):
                log.exception("observe.failed")
            self._report_host_unseen(desired, str(error))
            return RETRY_INTERVAL_S
        self._forget_others(desired)
        view = self._view = View(self.kinds, self.settings, desired, actual, self.notes, self.clock(), by_kind)
        for kind in self.kinds:
            kind.update_notes(view)
        self._decide(view, plan(view), observation)
        deadlines = (deadline for kind in self.kinds for deadline in kind.deadlines(view))
        return min(OBSERVE_INTERVAL_S, self.notes.next_deadline(view.now, deadlines))

    def _forget_others(self, desired: Desired) -> None:
        """Forgets all about objects that are no longer in the slice and have no steps under way."""
        ids = desired.by_id.keys() | {run.wanted.id for run in self.runs}
        self.notes.keep_only(ids)
        self.runs.keep_only(ids)
        self._reported = {id_: resource for id_, resource in self._reported.items() if id_ in ids}

    def _decide(self, view: View[S, A], verdicts: dict[str, Verdict], observation: int) -> None:
        """Reports all objects, and begins the steps that are due, those that have been due for longest first."""
        self._verdicts = verdicts
        due: list[Run] = []
        for wanted in view.desired:
            verdict = verdicts.get(wanted.id)
            if verdict is None:
                self._report_unseen(wanted, view.actual.unseen[wanted.id])
            elif run := self.runs.get(wanted.id):
                self._decide_busy(view, wanted, verdict, run)
            else:
                due += self._decide_idle(view, wanted, verdict, observation)
        ids = {run.wanted.id for run in due}
        self._due_since = {id_: self._due_since.get(id_, view.now) for id_ in ids}
        self._queue = sorted(due, key=lambda run: self._due_since[run.wanted.id])
        self._begin_due()

    def _decide_idle(self, view: View[S, A], wanted: DesiredObject, verdict: Verdict, observation: int) -> list[Run]:
        """Reports an object without steps under way. Returns the run that is due, if any."""
        run = Run.of(view.desired, wanted, verdict, observation)
        if self.runs.is_outdated(run):
            return []  # the end of the run that it is too old for has started the next round
        if (verdict.steps or verdict.gone) and (other := self.runs.conflicting(run)):
            verdict = Verdict(waits=f"{other.wanted.name}: {other.step or other.verdict}")
        if not verdict.steps and not verdict.waits:
            view.notes.forget_failures(wanted.id)
        self._report(view, wanted, verdict)
        is_paused = view.notes.is_paused(wanted, view.now, is_fallback=verdict.is_fallback)
        return [run] if verdict.steps and not is_paused else []

    def _decide_busy(self, view: View[S, A], wanted: DesiredObject, verdict: Verdict, run: Run) -> None:
        """Reports an object whose steps take long. A fallback that is due replaces a step that hangs."""
        for step in verdict.steps:
            step.when_due(self.notes, view.now)
        if not run.is_slow or run.step is None:
            return
        if verdict.is_fallback and run.step.is_interruptible and run.task is not None:
            log.warning("step.interrupted", id=wanted.id, step=str(run.step), fallback=str(verdict))
            run.task.cancel()
        minutes = int(view.now - run.started_at) // 60
        working = f"{run.step}" + (f", for {minutes} min" if minutes else "")
        if run.wanted.generation != wanted.generation:
            working = f"{working}, of an earlier change; then {verdict}"
        self._report(view, wanted, Verdict(working=working))

    def _begin_due(self) -> None:
        """Begins the runs of the queue as far as there is room. Those that no longer fit are left to the next round."""
        while self._queue and self.runs.has_room():
            run = self._queue.pop(0)
            sent = self.feed.desired().get(run.wanted.id)
            is_wanted = sent is not None and (sent.generation, sent.gone) == (run.wanted.generation, run.wanted.gone)
            if not is_wanted or self.runs.is_outdated(run) or self.runs.conflicting(run):
                self._wake.set()
                continue
            self._due_since.pop(run.wanted.id, None)
            self.runs.begin(run)
            run.task = self._tasks.spawn(self._carry_out(run), f"steps of {run.wanted.id}")

    async def _carry_out(self, run: Run) -> None:
        """Error boundary: any error in or around an object's steps affects only that object."""
        try:
            await self._do_steps(run)
        except Exception as error:
            wanted = run.wanted
            log.exception("steps.failed", id=wanted.id)
            self.notes.failures[wanted.id] = Failure(wanted.generation, str(error), 1, self.clock() + LONGEST_RETRY_S)
        finally:
            self.runs.end(run)
            self._wake.set()
            self._begin_due()

    async def _do_steps(self, run: Run) -> None:
        wanted, verdict = run.wanted, run.verdict
        for step in verdict.steps:
            step.when_due(self.notes, self.clock())
        for step in verdict.steps:
            run.step, run.started_at, run.is_slow = step, self.clock(), False
            slow = self._eventloop.call_later(SLOW_STEP_S, self._note_slow, run)
            try:
                await self.do(step, self.host)
            except PermanentFailure as error:
                self.notes.given_up[wanted.id, wanted.generation] = str(error)
                return
            except Exception as error:
                reason = f"{step}: {error}"
                failure = self.notes.add_failure(wanted, reason, self.clock(), of_fallback=step.is_fallback)
                fields = {"id": wanted.id, "step": str(step), "reason": str(error), "attempts": failure.attempts}
                log.warning("step.failed", **fields, exc_info=not isinstance(error, StepFailed | OSError))
                return
            finally:
                slow.cancel()
            step.after(self.notes, self.clock())
            log.info("step.done", id=wanted.id, step=str(step))
            crash_point(f"{self.name}.{step.crash_point}")
        if self.notes.count_repeats(wanted, str(verdict)) > MAX_REPEATS:
            self.notes.add_failure(wanted, f"does not come to rest: {verdict}", self.clock())

    def _note_slow(self, run: Run) -> None:
        """A step takes long: others may begin, and the next round reports it."""
        run.is_slow = True
        self._wake.set()
        self._begin_due()

    def _report(self, view: View[S, A], wanted: DesiredObject, verdict: Verdict) -> None:
        """Reports the status of an object and its verdict. The feed does not send a report that equals the last."""
        kind = view.kinds.of(wanted)
        resource: Any = kind.message()
        if not verdict.gone:
            try:
                kind.fill_status(view, wanted, resource)
            except Exception as error:
                log.exception("status.failed", id=wanted.id)
                fails = verdict.fails or f"its status can't be reported, see the agent's log: {error!r}"
                verdict = replace(verdict, fails=fails)
            resource.meta.conditions.extend(verdict.conditions)
            if kind.is_node:
                fill_node_status(view, self._verdicts, resource)
            self._reported[wanted.id] = resource
        self.feed.report(report_of(view.notes, wanted, verdict, resource))

    def _report_host_unseen(self, desired: Desired, reason: str) -> None:
        """Reports all objects while the host can't be observed; those that need nothing on it as wanted."""
        for wanted in desired:
            kind = self.kinds.of(wanted)
            if kind.needs_host:
                self._report_unseen(wanted, reason)
            else:
                self.feed.report(report_of(self.notes, wanted, Verdict(gone=wanted.gone), kind.message()))

    def _report_unseen(self, wanted: DesiredObject, reason: str) -> None:
        """Reports the last status of an object without fields that may have changed since."""
        kind = self.kinds.of(wanted)
        resource: Any = kind.message()
        resource.MergeFrom(self._reported.get(wanted.id, resource))
        resource.ClearField("meta")
        kind.clear_unseen(resource)
        self.feed.report(unseen_report_of(self.notes, wanted, resource, reason))
