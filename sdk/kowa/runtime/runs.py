"""Runs: the steps that are under way, and what may run beside them.

Nothing waits for another object's slow step, with these exceptions:
- An object has one run at a time.
- A removal, or another exclusive step, is not carried out beside runs of objects that use its own, nor do these begin
  beside it: a domain whose start hangs keeps its disk.
- A run begins only from an observation that began after the end of those runs; else it could repeat or undo their work.

At most MAX_PARALLEL runs share the processor. One whose step takes longer than SLOW_STEP_S waits for something else,
and does not count: runs that hang hold up no others.
"""

import asyncio
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from kowa.runtime.desired import Desired, DesiredObject
from kowa.runtime.verdict import Step, Verdict

MAX_PARALLEL = 4
SLOW_STEP_S = 2.0


@dataclass(eq=False, slots=True)
class Run:
    """One attempt at the steps of an object."""

    wanted: DesiredObject
    verdict: Verdict
    uses: frozenset[str]  # ids of the objects that its own uses
    needs: frozenset[str]  # those of them that are not being deleted, which are planned as if they were missing
    is_exclusive: bool
    observation: int  # that it was planned from
    step: Step | None = None  # the present one
    started_at: float = 0.0  # the present step, in seconds of the reconciler's clock
    is_slow: bool = False  # whether the present step takes long, or hangs
    task: "asyncio.Task[None] | None" = None

    @classmethod
    def of(cls, desired: Desired, wanted: DesiredObject, verdict: Verdict, observation: int) -> "Run":
        """The run that a verdict calls for; without steps, one that is only checked against the others."""
        uses = desired.used_by(wanted) if verdict.steps else frozenset[str]()
        needs = frozenset(id_ for id_ in uses if not desired.by_id[id_].gone)
        is_exclusive = wanted.gone or any(step.is_exclusive for step in verdict.steps)
        return cls(wanted, verdict, uses, needs, is_exclusive, observation)


@dataclass(slots=True)
class Runs:
    """The runs under way, and when others ended. Times are counts of ended runs."""

    ended: int = 0
    _under_way: dict[str, Run] = field(default_factory=dict)  # by the id of their object
    _changed: dict[str, int] = field(default_factory=dict)  # object -> when its own last run ended
    _removed: dict[str, int] = field(default_factory=dict)  # object -> when its last exclusive run ended
    _used: dict[str, int] = field(default_factory=dict)  # object -> when the last run that used it ended

    def __iter__(self) -> Iterator[Run]:
        return iter(self._under_way.values())

    def get(self, id_: str) -> Run | None:
        """The run of an object."""
        return self._under_way.get(id_)

    def has_room(self) -> bool:
        """Whether another run may begin now."""
        return sum(not run.is_slow for run in self) < MAX_PARALLEL

    def conflicting(self, run: Run) -> Run | None:
        """A run under way beside which this one can't begin."""
        id_ = run.wanted.id
        if own := self._under_way.get(id_):
            return own
        for other in self:
            if (run.is_exclusive and id_ in other.uses) or (other.is_exclusive and other.wanted.id in run.needs):
                return other
        return None

    def is_outdated(self, run: Run) -> bool:
        """Whether its observation began before the end of a run beside which this one could not have begun."""
        id_ = run.wanted.id
        ends = [self._changed.get(id_, 0), *(self._removed.get(used, 0) for used in run.needs)]
        if run.is_exclusive:
            ends.append(self._used.get(id_, 0))
        return max(ends) > run.observation

    def begin(self, run: Run) -> None:
        """Adds a run that conflicts with none."""
        assert self.conflicting(run) is None
        self._under_way[run.wanted.id] = run

    def end(self, run: Run) -> None:
        """Removes a run."""
        id_ = run.wanted.id
        del self._under_way[id_]
        self.ended += 1
        self._changed[id_] = self.ended
        self._used |= dict.fromkeys(run.uses, self.ended)
        if run.is_exclusive:
            self._removed[id_] = self.ended

    def keep_only(self, ids: Set[str]) -> None:
        """Forgets when runs of other objects ended."""
        for by_id in (self._changed, self._removed, self._used):
            for id_ in by_id.keys() - ids:
                del by_id[id_]
