"""The sweep: life cycles of instances and templates, in which a program dies at each crash point."""

import itertools
from collections.abc import Callable

from tests.stack import consistency
from tests.stack.program import Program
from tests.stack.site import Site
from tests.stack.slow_source import SlowSource
from tests.stack.workflows import Condition, InstanceWorkflows, TemplateWorkflows
from tests.waiting import until

WORKFLOW_TIMEOUT_S = 90.0  # for a workflow in which a program dies
LATE_PASS_TIMEOUT_S = 30.0  # after a workflow, for a crash point that is passed late
DEATHS_IN_A_ROW = 5  # deaths in one workflow
MANY_DEATHS_TIMEOUT_S = 240.0  # for a workflow with so many
MAIN_WORKFLOWS = ("create", "resize", "stop", "delete")
LIFE_CYCLES = {
    "instance": ("create", "reboot", "suspend", "resume", "resize", "stop", "delete"),
    "template": ("fill", "cancel_import", "clear"),
}
# Crash points that are passed only after a death at another one, in this workflow: point -> (workflow, other point).
REACHED_ONLY_AFTER = {
    "kaktus.RecordVolume": ("create", "kaktus.volume.named"),
    "kaktus.RemoveMetadataFilter": ("delete", "agent.batch.stored"),
}

_numbers = itertools.count(1)


class Sweep:
    """Runs life cycles, and kills programs in them."""

    def __init__(self, site: Site, source: SlowSource) -> None:
        self.site = site
        self.source = source
        self.kills = 0
        self.passed: dict[str, list[str]] = {}

    def record_passed_points(self) -> None:
        """Records which crash points each workflow passes when no program dies."""
        for kind, workflows in LIFE_CYCLES.items():
            subject = self._new_subject(kind)
            for workflow in workflows:
                for program in self.site.stack.programs:
                    program.forget_trace()
                self._complete(getattr(subject, workflow))
                self.passed[workflow] = [point for program in self.site.stack.programs for point in program.passed()]

    def workflows_passing(self, point: str) -> list[str]:
        """The workflows to die in at a point: the main ones that pass it, or else the first other."""
        if point in REACHED_ONLY_AFTER:
            return [REACHED_ONLY_AFTER[point][0]]
        passing = [workflow for workflow, passed in self.passed.items() if point in passed]
        return [workflow for workflow in passing if workflow in MAIN_WORKFLOWS] or passing[:1]

    def die_at(self, point: str) -> None:
        """Runs a life cycle with a death at this point in each workflow that passes it."""
        passing = self.workflows_passing(point)
        for kind, workflows in LIFE_CYCLES.items():
            if not set(passing) & set(workflows):
                continue
            subject = self._new_subject(kind)
            for workflow in workflows:
                if workflow in passing:
                    self._die_in(getattr(subject, workflow), point)
                elif workflow in (workflows[0], workflows[-1]):
                    self._complete(getattr(subject, workflow))

    def die_repeatedly(self, kind: str, first: list[str], last: list[str] | None = None) -> None:
        """Runs the first and last workflow of a life cycle; a program dies in each at all of these points.

        Not all deaths happen: some points are not passed any more after others.
        """
        subject = self._new_subject(kind)
        for workflow, points in ((LIFE_CYCLES[kind][0], first), (LIFE_CYCLES[kind][-1], last or first)):
            self.site.restart_agent()
            program = self._program(points[0])
            deaths = program.deaths
            program.arm(*points)
            try:
                self._complete(getattr(subject, workflow), MANY_DEATHS_TIMEOUT_S)
            finally:
                program.arm()
            assert program.deaths - deaths >= min(DEATHS_IN_A_ROW, len(points)) - 1
            self.kills += program.deaths - deaths

    def _die_in(self, workflow: Callable[[], Condition], point: str) -> None:
        program = self._program(point)
        if program is self.site.stack.kahuna:
            # An agent that is often cut off waits longer each time; a new one starts with the shortest wait.
            self.site.restart_agent()
        deaths = program.deaths
        points = (REACHED_ONLY_AFTER[point][1], point) if point in REACHED_ONLY_AFTER else (point,)
        program.arm(*points)
        self._complete(workflow)
        try:
            until(lambda: not program.armed(), timeout=LATE_PASS_TIMEOUT_S, what=f"a death at {point}")
        finally:
            program.arm()
        until(lambda: program.deaths == deaths + len(points), what=f"{program.name} is started again")
        self.kills += len(points)

    def _complete(self, workflow: Callable[[], Condition], timeout: float = WORKFLOW_TIMEOUT_S) -> None:
        condition = workflow()
        until(condition, timeout=timeout, what=workflow.__name__)
        consistency.await_equal(self.site.stack, timeout)

    def _new_subject(self, kind: str) -> InstanceWorkflows | TemplateWorkflows:
        number = next(_numbers)
        name = f"{kind}-{number}"
        if kind == "template":
            return TemplateWorkflows(self.site, name, self.source)
        return InstanceWorkflows(self.site, name, f"10.9.{number}.0/24", self.site.idle)

    def _program(self, point: str) -> Program:
        kahuna, agent = self.site.stack.programs
        return kahuna if point.startswith("kahuna.") else agent
