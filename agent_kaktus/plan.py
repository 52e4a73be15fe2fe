"""Plans: for each object of the slice the least steps that turn what is into what is wanted, or why there are none now.

Each noun's module says it for its own kind, and nothing else knows a kind by name. Plans are pure: their text is the
test. Only an explicit GONE removes anything. What bears our mark, or a name as we give them, and is in no slice is
named as a stranger and left alone. A step is planned when all it depends on is there; what depends on it follows with
the next observation.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from agent_kaktus.actual import Actual
from agent_kaktus.memory import Memory
from agent_kaktus.settings import Settings
from kowa.runtime import desired
from kowa.runtime.desired import Desired, DesiredObject, Kinds
from kowa.v2.meta_pb2 import Condition

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost

log = structlog.get_logger()

D = TypeVar("D", bound=DesiredObject)

SPACE_UNIT_BYTES = 16 << 20  # space is reported in whole units, or each observation would send a report


def _note_nothing(memory: Memory, now: float) -> None:
    """As most steps do."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the host that can be repeated. Its text is a verb, such as `create pool`, and a name."""

    verb: str
    name: str
    do: Callable[["LocalHost"], Coroutine[Any, Any, None]]  # raises StepFailed or OSError with the reason
    before: Callable[[Memory, float], None] = _note_nothing  # notes what must be known though it fails
    after: Callable[[Memory, float], None] = _note_nothing  # notes what must be known once it is done

    @property
    def crash_point(self) -> str:
        """Behind it; such as `CreatePool`."""
        return self.verb.title().replace(" ", "")

    def __str__(self) -> str:
        return f"{self.verb} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The steps that an object needs, or why it can have none now. With nothing set it is as wanted."""

    steps: tuple[Step, ...] = ()
    working: str = ""  # what goes on by itself and is awaited
    waits: str = ""  # for another object
    fails: str = ""
    gone: bool = False
    conditions: tuple[Condition, ...] = ()  # worth knowing though it is as wanted; Kahuna adds since when they hold

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
    """Everything that a plan may look at: what is wanted and what is, at one time."""

    kinds: Kinds["Kind[Any]"]
    config: Settings
    desired: Desired
    actual: Actual
    memory: Memory = field(default_factory=Memory)
    now: float = 0.0  # seconds of the loop's clock


class Kind(desired.Kind[D]):
    """One kind of object. What is not overridden is right for a kind that needs nothing of the host."""

    needs_host = True  # otherwise it is as wanted though the host can't be observed

    async def observe(self, host: Any) -> Any:
        """What this kind sees on a host beside what all share; it stands in `actual.by_kind` under the kind's value."""
        return None

    def plan(self, view: View, wanted: D) -> Verdict:
        """The least steps that turn what is into what is wanted. Pure."""
        return GONE if wanted.gone else AS_WANTED

    def fill_status(self, view: View, wanted: D, resource: Any) -> None:
        """Puts what is seen of an object into the status of a resource to report."""

    def clear_unseen(self, resource: Any) -> None:
        """Takes from a last report what may have changed while the host can't be observed."""

    def strangers(self, view: View) -> Iterable[str]:
        """What is on the host like objects of this kind, and in no slice."""
        return ()

    def update_memory(self, view: View) -> None:
        """Brings the memory of this kind up to what is seen."""

    def deadlines(self, view: View) -> Iterable[float]:
        """When something is due though nothing changes, in seconds of the loop's clock."""
        return ()


def plan(view: View) -> dict[str, Verdict]:
    """A verdict on each object by its id, in the order of the kinds."""
    return {wanted.id: _plan_safely(view, wanted) for wanted in view.desired}


def _plan_safely(view: View, wanted: DesiredObject) -> Verdict:
    """Error boundary: an object that can't be planned fails alone."""
    given_up = "" if wanted.gone else view.memory.why_given_up(wanted)
    try:
        return Verdict(fails=given_up) if given_up else view.kinds.of(wanted).plan(view, wanted)
    except Exception as error:
        log.exception("plan.failed", id=wanted.id)
        return Verdict(fails=f"can't be planned, see the agent's log: {error!r}")


def strangers(view: View) -> list[str]:
    """What is on the host and in no slice."""
    return sorted(found for kind in view.kinds for found in kind.strangers(view))


def rounded_space(size: int) -> int:
    """A number of bytes as it is reported."""
    return size // SPACE_UNIT_BYTES * SPACE_UNIT_BYTES
