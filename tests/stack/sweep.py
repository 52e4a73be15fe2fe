"""The sweep: lives of machines and templates, and deaths in them at named points."""

import itertools
from collections.abc import Callable

from tests.stack import consistency
from tests.stack.program import Program
from tests.stack.site import Site
from tests.stack.slow_source import SlowSource
from tests.stack.workflows import Condition, InstanceWorkflows, TemplateWorkflows
from tests.waiting import until

LIMIT_S = 90.0  # for a workflow in which somebody dies
LATE_PASS_LIMIT_S = 30.0  # after its end in which a point may still be passed
DEATHS_IN_A_ROW = 5  # deaths in one workflow
MANY_DEATHS_LIMIT_S = 240.0  # for one with so many
MAIN_WORKFLOWS = ("create", "resize", "stop", "delete")
LIVES = {
    "machine": ("create", "reboot", "suspend", "resume", "resize", "stop", "delete"),
    "template": ("fill", "change_mind", "clear"),
}
# Passed only by one who finds what somebody left who died at the other, in one workflow.
REACHED_ONLY_AFTER = {
    "kaktus.RecordVolume": ("create", "kaktus.volume.named"),
    "kaktus.RemoveMetadataFilter": ("delete", "agent.batch.stored"),
}

_numbers = itertools.count(1)


class Sweep:
    """Lives, and deaths in them."""

    def __init__(self, site: Site, source: SlowSource) -> None:
        self.site = site
        self.source = source
        self.kills = 0
        self.passed: dict[str, list[str]] = {}

    def learn(self) -> None:
        """Which points each workflow passes when nobody dies."""
        for kind, workflows in LIVES.items():
            subject = self._new(kind)
            for workflow in workflows:
                for program in self.site.stack.programs:
                    program.forget_trace()
                self._bring_about(getattr(subject, workflow))
                self.passed[workflow] = [point for program in self.site.stack.programs for point in program.passed()]

    def passing(self, point: str) -> list[str]:
        """The workflows to die in at a point: all four that people use most, or the first other that passes it."""
        if point in REACHED_ONLY_AFTER:
            return [REACHED_ONLY_AFTER[point][0]]
        passing = [workflow for workflow, passed in self.passed.items() if point in passed]
        return [workflow for workflow in passing if workflow in MAIN_WORKFLOWS] or passing[:1]

    def die(self, point: str) -> None:
        """One life with a death at a point in each workflow that passes it."""
        passing = self.passing(point)
        for kind, workflows in LIVES.items():
            if not set(passing) & set(workflows):
                continue
            subject = self._new(kind)
            for workflow in workflows:
                if workflow in passing:
                    self._die_in(getattr(subject, workflow), point)
                elif workflow in (workflows[0], workflows[-1]):
                    self._bring_about(getattr(subject, workflow))

    def die_again_and_again(self, kind: str, coming: list[str], going: list[str] | None = None) -> None:
        """A life in whose beginning and end somebody dies at point after point; some are passed no more after that."""
        subject = self._new(kind)
        for workflow, points in ((LIVES[kind][0], coming), (LIVES[kind][-1], going or coming)):
            self.site.renew_agent()
            program = self._program(points[0])
            deaths = program.deaths
            program.arm(*points)
            try:
                self._bring_about(getattr(subject, workflow), MANY_DEATHS_LIMIT_S)
            finally:
                program.arm()
            assert program.deaths - deaths >= min(DEATHS_IN_A_ROW, len(points)) - 1
            self.kills += program.deaths - deaths

    def _die_in(self, workflow: Callable[[], Condition], point: str) -> None:
        program = self._program(point)
        if program is self.site.stack.kahuna:
            # An agent that is often cut off waits longer each time; a new one begins anew.
            self.site.renew_agent()
        deaths = program.deaths
        points = (REACHED_ONLY_AFTER[point][1], point) if point in REACHED_ONLY_AFTER else (point,)
        program.arm(*points)
        self._bring_about(workflow)
        try:
            until(lambda: not program.armed(), timeout=LATE_PASS_LIMIT_S, what=f"dying at {point}")
        finally:
            program.arm()
        until(lambda: program.deaths == deaths + len(points), what=f"{program.name} is started again")
        self.kills += len(points)

    def _bring_about(self, workflow: Callable[[], Condition], limit: float = LIMIT_S) -> None:
        condition = workflow()
        until(condition, timeout=limit, what=workflow.__name__)
        consistency.await_equal(self.site.stack, limit)

    def _new(self, kind: str) -> InstanceWorkflows | TemplateWorkflows:
        number = next(_numbers)
        name = f"{kind}-{number}"
        if kind == "template":
            return TemplateWorkflows(self.site, name, self.source)
        return InstanceWorkflows(self.site, name, f"10.9.{number}.0/24", self.site.idle)

    def _program(self, point: str) -> Program:
        kahuna, agent = self.site.stack.programs
        return kahuna if point.startswith("kahuna.") else agent
