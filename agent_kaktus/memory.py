"""What the agent remembers between two observations, and forgets when it ends: failures, pauses, what kinds note."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kowa.backoff import delay
from kowa.runtime.desired import DesiredObject

MAX_ATTEMPTS = 5  # then an object is reported as failed, and tried on
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
MAX_REPEATS = 3  # of the same steps, which succeed and are needed again at once

Generation = tuple[str, int]  # an object's id and the number of its generation
N = TypeVar("N")


@dataclass(slots=True)
class Failure:
    """Steps that failed, how often in a row, and when they are tried again."""

    reason: str
    attempts: int
    retry_at: float


@dataclass(slots=True)
class Memory:
    """Plans read it, the loop and steps write it. Times are seconds of the loop's clock."""

    failures: dict[str, Failure] = field(default_factory=dict)
    given_up: dict[Generation, str] = field(default_factory=dict)  # why nothing is tried until the generation changes
    applied: dict[str, int] = field(default_factory=dict)  # object -> generation
    repeats: dict[str, tuple[str, int]] = field(default_factory=dict)  # object -> its last steps, how often in a row
    _notes: dict[type[Any], Any] = field(default_factory=dict)

    def of(self, notes: type[N]) -> N:
        """The notes of a kind, which removes by itself what it no longer needs."""
        found: N = self._notes.setdefault(notes, notes())
        return found

    def why_given_up(self, wanted: DesiredObject) -> str:
        """Empty unless it was given up."""
        return self.given_up.get((wanted.id, wanted.generation), "")

    def note_failure(self, id_: str, reason: str, now: float) -> Failure:
        attempts = self.failures[id_].attempts + 1 if id_ in self.failures else 1
        retry_at = now + delay(attempts, FIRST_RETRY_S, LONGEST_RETRY_S)
        self.failures[id_] = Failure(reason, attempts, retry_at)
        return self.failures[id_]

    def count_repeats(self, id_: str, steps: str) -> int:
        """Notes that an object's steps are done. Returns how often in a row it has needed these very steps."""
        last, times = self.repeats.get(id_, ("", 0))
        self.repeats[id_] = (steps, times + 1 if steps == last else 1)
        return self.repeats[id_][1]

    def is_paused(self, id_: str, now: float) -> bool:
        """Whether its steps failed, and are to be tried again later."""
        return id_ in self.failures and now < self.failures[id_].retry_at

    def forget_failures(self, id_: str) -> None:
        """Of an object that needs no steps now."""
        self.failures.pop(id_, None)
        self.repeats.pop(id_, None)

    def keep_only(self, ids: Set[str]) -> None:
        """Forgets what is about objects that are no longer in the slice."""
        for by_id in (self.failures, self.applied, self.repeats):
            for id_ in by_id.keys() - ids:
                del by_id[id_]
        for key in [key for key in self.given_up if key[0] not in ids]:
            del self.given_up[key]

    def next_deadline(self, now: float, others: Iterable[float]) -> float:
        """Seconds until something is due. What was due before is being done, or waits for something else."""
        due = [failure.retry_at for failure in self.failures.values()] + list(others)
        return max(min((at for at in due if at > now), default=now + LONGEST_RETRY_S) - now, 0.05)
