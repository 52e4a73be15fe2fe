"""Verdicts on objects, and the steps that they call for."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kowa.runtime.notes import Notes
from kowa.v2.meta_pb2 import Condition


def _note_nothing(notes: Notes, now: float) -> None:
    """The default: a step that notes nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the host that can be repeated. Its text is a verb, such as `create pool`, and a name."""

    verb: str
    name: str
    do: Callable[[Any], Coroutine[Any, Any, None]]  # on the agent's host; raises StepFailed or OSError with the reason
    when_due: Callable[[Notes, float], None] = _note_nothing  # called before it, also while an earlier step still hangs
    after: Callable[[Notes, float], None] = _note_nothing  # called after it has succeeded
    is_exclusive: bool = False  # not beside steps of objects that use its own, as are all steps that remove an object
    is_interruptible: bool = False  # may be given up for a fallback while it hangs: its call is not repeated until then
    is_fallback: bool = False  # the harder way: failures of other steps do not delay it

    @property
    def crash_point(self) -> str:
        """The name of the crash point after it, such as `CreatePool`."""
        return self.verb.title().replace(" ", "")

    def __str__(self) -> str:
        return f"{self.verb} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The steps that an object needs, or why it can have none now. With no field set, the object is as wanted."""

    steps: tuple[Step, ...] = ()
    fallback: str = ""  # the harder way that is still due if the steps fail; until then the object has not failed
    working: str = ""  # background work that is awaited
    waits: str = ""  # what it waits for, often another object
    fails: str = ""  # why it can't be as wanted
    is_missing: bool = False  # whether it fails since it was there once and is never made anew
    gone: bool = False
    conditions: tuple[Condition, ...] = ()  # to report though it is as wanted; Kahuna adds their transition times

    @property
    def is_fallback(self) -> bool:
        """Whether it begins with a fallback."""
        return bool(self.steps) and self.steps[0].is_fallback

    def __str__(self) -> str:
        if self.steps:
            return ", ".join(str(step) for step in self.steps)
        for word in ("working", "waits", "fails"):
            if text := getattr(self, word):
                return f"{word}: {text}"
        if self.gone:
            return "gone"
        return " ".join(condition.type for condition in self.conditions) or "-"


AS_WANTED = Verdict()
GONE = Verdict(gone=True)
