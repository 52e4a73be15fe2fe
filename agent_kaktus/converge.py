"""The loop: observes, plans and does steps until none is left, then waits for a change; reports to Kahuna meanwhile.

It names no kind.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from google.protobuf.message import Message

from agent_kaktus.actual import Actual
from agent_kaktus.errors import PermanentFailure, StepFailed
from agent_kaktus.notes import LONGEST_RETRY_S, MAX_ATTEMPTS, MAX_REPEATS, Failure, Notes
from agent_kaktus.plan import Kind, Step, Verdict, View, plan
from agent_kaktus.settings import Settings
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.crashpoint import crash_point
from kowa.runtime.desired import Desired, DesiredObject, Kinds
from kowa.runtime.feed import Feed, Refused

OBSERVE_INTERVAL_S = 30.0  # when no event comes
RETRY_INTERVAL_S = 1.0  # while the host can't be observed
MAX_PARALLEL = 4  # objects whose steps are done at a time
MAX_ROUNDS = 50  # of observing, planning and doing without a pause

log = structlog.get_logger()


@dataclass
class Loop:
    """Converges a host: a LocalHost, or in tests a fake with the same interface."""

    kinds: Kinds[Kind[Any]]
    settings: Settings
    feed: Feed
    host: Any
    notes: Notes = field(default_factory=Notes)
    clock: Callable[[], float] = time.monotonic  # in seconds

    def __post_init__(self) -> None:
        self.desired = Desired()  # of the last plan
        self._view: View | None = None
        self._reported: dict[str, Message] = {}  # the latest resource of each object that was observed
        self._wake = asyncio.Event()
        self._eventloop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._wake.clear()
                pause = await self._converge_safely()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()

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
        if self._view is not None and self._view.desired.of(type(wanted)).get(wanted.id) == wanted:
            self._report(self._view, wanted, Verdict(working=working))

    async def _listen(self) -> None:
        while True:
            await self.feed.wait_for_change(OBSERVE_INTERVAL_S)
            self._wake.set()

    async def _converge_safely(self) -> float:
        """Error boundary: any error outside of steps is logged, and the host is converged again later."""
        try:
            return await self.converge()
        except Refused as error:  # a stored slice that this version can't parse; Kahuna sends a new one
            log.warning("slice.refused", reason=str(error))
            return OBSERVE_INTERVAL_S
        except Exception:
            log.exception("converge.failed")
            return RETRY_INTERVAL_S

    async def converge(self) -> float:
        """Converges the host as far as possible now. Returns the seconds until it should be observed again."""
        for _ in range(MAX_ROUNDS):
            desired = self.desired = self.kinds.parse(self.feed.desired())
            if desired.node is None:
                return OBSERVE_INTERVAL_S
            view = View(self.kinds, self.settings, desired, Actual(), self.notes, self.clock())
            try:
                actual = await self.host.observe(desired.node.id)
                by_kind = {kind.value: await kind.observe(self.host) for kind in self.kinds}
            except Exception as error:
                if not isinstance(error, StepFailed | OSError):
                    log.exception("observe.failed")
                self._report_unseen(view, str(error))
                return RETRY_INTERVAL_S
            self.notes.keep_only({wanted.id for wanted in desired})
            view = replace(view, actual=replace(actual, by_kind=by_kind), now=self.clock())
            for kind in self.kinds:
                kind.update_notes(view)
            due = self._decide(view)
            if not due:
                deadlines = (deadline for kind in self.kinds for deadline in kind.deadlines(view))
                return min(OBSERVE_INTERVAL_S, self.notes.next_deadline(view.now, deadlines))
            parallel = asyncio.Semaphore(MAX_PARALLEL)
            async with asyncio.TaskGroup() as group:
                for wanted, verdict in due.items():
                    group.create_task(self._do_for(wanted, verdict, parallel))
        return RETRY_INTERVAL_S

    def _decide(self, view: View) -> dict[DesiredObject, Verdict]:
        """Reports all objects. Returns the verdicts of those whose steps are to be done now."""
        self._view, verdicts = view, plan(view)
        for wanted in view.desired:
            if not verdicts[wanted.id].steps:
                view.notes.forget_failures(wanted.id)
            self._report(view, wanted, verdicts[wanted.id])
        for id_ in self._reported.keys() - verdicts.keys():
            del self._reported[id_]
        return {
            wanted: verdict
            for wanted in view.desired
            if (verdict := verdicts[wanted.id]).steps and not view.notes.is_paused(wanted.id, view.now)
        }

    async def _do_for(self, wanted: DesiredObject, verdict: Verdict, parallel: asyncio.Semaphore) -> None:
        """Error boundary: any error in or around an object's steps affects only that object."""
        async with parallel:
            try:
                await self._do_steps(wanted, verdict)
            except Exception as error:
                log.exception("steps.failed", id=wanted.id)
                self.notes.failures[wanted.id] = Failure(str(error), 1, self.clock() + LONGEST_RETRY_S)

    async def _do_steps(self, wanted: DesiredObject, verdict: Verdict) -> None:
        for step in verdict.steps:
            step.before(self.notes, self.clock())
        for step in verdict.steps:
            try:
                await self._carry_out(step)
            except PermanentFailure as error:
                self.notes.given_up[wanted.id, wanted.generation] = str(error)
                return
            except Exception as error:
                failure = self.notes.add_failure(wanted.id, f"{step}: {error}", self.clock())
                fields = {"id": wanted.id, "step": str(step), "reason": str(error), "attempts": failure.attempts}
                log.warning("step.failed", **fields, exc_info=not isinstance(error, StepFailed | OSError))
                return
            step.after(self.notes, self.clock())
            log.info("step.done", id=wanted.id, step=str(step))
            crash_point(f"kaktus.{step.crash_point}")
        if self.notes.count_repeats(wanted.id, str(verdict)) > MAX_REPEATS:
            self.notes.add_failure(wanted.id, f"does not come to rest: {verdict}", self.clock())

    def _report(self, view: View, wanted: DesiredObject, verdict: Verdict) -> None:
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
            self._reported[wanted.id] = resource
        outcome, message = _outcome(view.notes, wanted, verdict)
        if outcome == fleet_pb2.OUTCOME_APPLIED:
            view.notes.applied[wanted.id] = wanted.generation
        is_ended = outcome in (fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED)
        report = fleet_pb2.Report(
            id=wanted.id,
            observed_generation=wanted.generation if is_ended else view.notes.applied.get(wanted.id, 0),
            gone=verdict.gone,
            resource=resources.pack(resource),
            outcome=outcome,
            message=message,
        )
        self.feed.report(report)

    def _report_unseen(self, view: View, reason: str) -> None:
        """Reports, while the host can't be observed, the last status without fields that may have changed since.

        Objects that need nothing on the host are reported as wanted.
        """
        for wanted in view.desired:
            kind = view.kinds.of(wanted)
            if not kind.needs_host:
                self._report(view, wanted, Verdict(gone=wanted.gone))
                continue
            resource: Any = kind.message()
            resource.MergeFrom(self._reported.get(wanted.id, resource))
            resource.ClearField("meta")
            kind.clear_unseen(resource)
            report = fleet_pb2.Report(
                id=wanted.id,
                observed_generation=view.notes.applied.get(wanted.id, 0),
                resource=resources.pack(resource),
                outcome=fleet_pb2.OUTCOME_WAITING,
                message=reason,
            )
            self.feed.report(report)

    async def _carry_out(self, step: Step) -> None:
        await step.do(self.host)


def _outcome(notes: Notes, wanted: DesiredObject, verdict: Verdict) -> tuple[fleet_pb2.Outcome, str]:
    if verdict.steps and (failure := notes.failures.get(wanted.id)):
        if failure.attempts >= MAX_ATTEMPTS:
            return fleet_pb2.OUTCOME_FAILED, failure.reason
        return fleet_pb2.OUTCOME_WAITING, f"tries again: {failure.reason}"
    if verdict.steps or verdict.working:
        return fleet_pb2.OUTCOME_WORKING, verdict.working or str(verdict)
    if verdict.waits:
        return fleet_pb2.OUTCOME_WAITING, f"waits for {verdict.waits}"
    if verdict.fails:
        return fleet_pb2.OUTCOME_FAILED, verdict.fails
    return fleet_pb2.OUTCOME_APPLIED, ""
