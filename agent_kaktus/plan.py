"""Plans: for each object of the slice the fewest steps from the actual to the desired state, or why there are none now.

Each kind has a module of its own that plans it; no other code names a kind. Plans are pure: tests compare their text.
Only an explicit GONE removes anything. An object on the host that has our mark, or a name like ours, but is not in the
slice is reported as a stranger and left alone. A step is planned once all that it depends on exists; the steps that
depend on it follow after the next observation.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from agent_kaktus.actual import Actual
from agent_kaktus.notes import Notes
from agent_kaktus.settings import Settings
from kowa.runtime import desired
from kowa.runtime.desired import Desired, DesiredObject, Kinds
from kowa.v2.meta_pb2 import Condition

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost

log = structlog.get_logger()

D = TypeVar("D", bound=DesiredObject)

SPACE_UNIT_BYTES = 16 << 20  # space is reported in whole units; else each observation would send a report


def _note_nothing(notes: Notes, now: float) -> None:
    """The default: a step that notes nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the host that can be repeated. Its text is a verb, such as `create pool`, and a name."""

    verb: str
    name: str
    do: Callable[["LocalHost"], Coroutine[Any, Any, None]]  # raises StepFailed or OSError with the reason
    before: Callable[[Notes, float], None] = _note_nothing  # called before it is tried
    after: Callable[[Notes, float], None] = _note_nothing  # called after it has succeeded

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
    working: str = ""  # background work that is awaited
    waits: str = ""  # what it waits for, often another object
    fails: str = ""  # why it can't be as wanted
    gone: bool = False
    conditions: tuple[Condition, ...] = ()  # to report though it is as wanted; Kahuna adds their transition times

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


@dataclass(frozen=True, slots=True)
class View:
    """The input of a plan: the desired and the actual state at one time."""

    kinds: Kinds["Kind[Any]"]
    config: Settings
    desired: Desired
    actual: Actual
    notes: Notes = field(default_factory=Notes)
    now: float = 0.0  # seconds of the loop's clock


class Kind(desired.Kind[D]):
    """One kind of object. The defaults are for a kind that needs nothing on the host."""

    needs_host = True  # if not, it is reported as wanted also while the host can't be observed

    async def observe(self, host: Any) -> Any:
        """Observes more of the host for this kind. The result is in `actual.by_kind`, by the kind's `value` type."""
        return None

    def plan(self, view: View, wanted: D) -> Verdict:
        """The fewest steps from the actual to the desired state. Pure."""
        return GONE if wanted.gone else AS_WANTED

    def fill_status(self, view: View, wanted: D, resource: Any) -> None:
        """Fills the status of a resource to report with the observed state of its object."""

    def clear_unseen(self, resource: Any) -> None:
        """Clears fields of the last report that may have changed while the host can't be observed."""

    def strangers(self, view: View) -> Iterable[str]:
        """Objects on the host that look like this kind's but are not in the slice."""
        return ()

    def update_notes(self, view: View) -> None:
        """Updates the notes of this kind from an observation."""

    def deadlines(self, view: View) -> Iterable[float]:
        """Times at which to plan again even if nothing changes, in seconds of the loop's clock."""
        return ()


def plan(view: View) -> dict[str, Verdict]:
    """The verdict on each object, by its id, in the order of the kinds."""
    return {wanted.id: _plan_safely(view, wanted) for wanted in view.desired}


def _plan_safely(view: View, wanted: DesiredObject) -> Verdict:
    """Error boundary: an object that can't be planned fails alone."""
    given_up = "" if wanted.gone else view.notes.why_given_up(wanted)
    try:
        return Verdict(fails=given_up) if given_up else view.kinds.of(wanted).plan(view, wanted)
    except Exception as error:
        log.exception("plan.failed", id=wanted.id)
        return Verdict(fails=f"can't be planned, see the agent's log: {error!r}")


def strangers(view: View) -> list[str]:
    """Objects on the host that are not in the slice."""
    return sorted(found for kind in view.kinds for found in kind.strangers(view))


def rounded_space(size: int) -> int:
    """A number of bytes, rounded down for reports."""
    return size // SPACE_UNIT_BYTES * SPACE_UNIT_BYTES
