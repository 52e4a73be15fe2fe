"""What the agent keeps in memory between observations: failures, pauses, and notes of the kinds."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kowa.backoff import delay
from kowa.runtime.desired import DesiredObject

MAX_ATTEMPTS = 5  # then an object is reported as failed, and still retried
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
MAX_REPEATS = 3  # of the same steps that succeed and are needed again at once

Generation = tuple[str, int]  # an object's id and the number of its generation
N = TypeVar("N")


@dataclass(slots=True)
class Failure:
    """The failure of an object's steps, the number of attempts in a row, and the time of the next one."""

    reason: str
    attempts: int
    retry_at: float


@dataclass(slots=True)
class Notes:
    """Read by plans, written by the loop and by steps. Times are seconds of the loop's clock."""

    failures: dict[str, Failure] = field(default_factory=dict)
    given_up: dict[Generation, str] = field(default_factory=dict)  # why nothing is tried until the generation changes
    applied: dict[str, int] = field(default_factory=dict)  # object -> generation
    repeats: dict[str, tuple[str, int]] = field(default_factory=dict)  # object -> its last steps, how often in a row
    _by_kind: dict[type[Any], Any] = field(default_factory=dict)

    def of(self, notes: type[N]) -> N:
        """The notes of a kind, which that kind cleans up itself."""
        found: N = self._by_kind.setdefault(notes, notes())
        return found

    def why_given_up(self, wanted: DesiredObject) -> str:
        """Why an object's generation was given up; empty if it was not."""
        return self.given_up.get((wanted.id, wanted.generation), "")

    def add_failure(self, id_: str, reason: str, now: float) -> Failure:
        attempts = self.failures[id_].attempts + 1 if id_ in self.failures else 1
        retry_at = now + delay(attempts, FIRST_RETRY_S, LONGEST_RETRY_S)
        self.failures[id_] = Failure(reason, attempts, retry_at)
        return self.failures[id_]

    def count_repeats(self, id_: str, steps: str) -> int:
        """Notes that an object's steps are done. Returns how often in a row it has needed the same steps."""
        last, times = self.repeats.get(id_, ("", 0))
        self.repeats[id_] = (steps, times + 1 if steps == last else 1)
        return self.repeats[id_][1]

    def is_paused(self, id_: str, now: float) -> bool:
        """Whether an object's steps failed and the next attempt is not due yet."""
        return id_ in self.failures and now < self.failures[id_].retry_at

    def forget_failures(self, id_: str) -> None:
        """Forgets the failures of an object, which needs no steps now."""
        self.failures.pop(id_, None)
        self.repeats.pop(id_, None)

    def keep_only(self, ids: Set[str]) -> None:
        """Forgets all other objects, which are no longer in the slice."""
        for by_id in (self.failures, self.applied, self.repeats):
            for id_ in by_id.keys() - ids:
                del by_id[id_]
        for key in [key for key in self.given_up if key[0] not in ids]:
            del self.given_up[key]

    def next_deadline(self, now: float, others: Iterable[float]) -> float:
        """Seconds until the next retry or deadline. Those that have passed are ignored: they have been dealt with."""
        due = [failure.retry_at for failure in self.failures.values()] + list(others)
        return max(min((at for at in due if at > now), default=now + LONGEST_RETRY_S) - now, 0.05)
