"""What an agent keeps in memory between observations: failures, pauses, and notes of the kinds."""

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
    """The failure of a generation's steps, the number of attempts in a row, and the time of the next one."""

    generation: int
    reason: str
    attempts: int
    retry_at: float
    of_fallback: bool = False


@dataclass(slots=True)
class Notes:
    """Read by plans, written by the reconciler and by steps. Times are seconds of the reconciler's clock."""

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

    def failure_of(self, wanted: DesiredObject) -> Failure | None:
        """The failure of an object's present generation: a new one starts without failures and without a pause."""
        found = self.failures.get(wanted.id)
        return found if found is not None and found.generation == wanted.generation else None

    def add_failure(self, wanted: DesiredObject, reason: str, now: float, *, of_fallback: bool = False) -> Failure:
        """Counts a failed attempt. The attempts of a fallback are counted anew."""
        last = self.failure_of(wanted)
        attempts = last.attempts + 1 if last is not None and last.of_fallback == of_fallback else 1
        retry_at = now + delay(attempts, FIRST_RETRY_S, LONGEST_RETRY_S)
        failure = self.failures[wanted.id] = Failure(wanted.generation, reason, attempts, retry_at, of_fallback)
        return failure

    def count_repeats(self, wanted: DesiredObject, steps: str) -> int:
        """Notes that an object's steps are done. Returns how often in a row its generation has needed the same ones."""
        key = f"{wanted.generation} {steps}"
        last, times = self.repeats.get(wanted.id, ("", 0))
        self.repeats[wanted.id] = (key, times + 1 if key == last else 1)
        return self.repeats[wanted.id][1]

    def is_paused(self, wanted: DesiredObject, now: float, *, is_fallback: bool = False) -> bool:
        """Whether an object's steps failed and the next attempt is not due yet. Only a fallback's own delay it."""
        failure = self.failure_of(wanted)
        return failure is not None and now < failure.retry_at and (failure.of_fallback or not is_fallback)

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
