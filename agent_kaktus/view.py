"""What a plan is made from, and what it says of each object."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_kaktus.actual import Actual
from agent_kaktus.desired import Desired
from agent_kaktus.memory import Memory
from agent_kaktus.site import Site
from agent_kaktus.steps import Step


@dataclass(frozen=True, slots=True)
class View:
    """Everything a decision may look at."""

    site: Site
    desired: Desired
    actual: Actual
    memory: Memory = field(default_factory=Memory)
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Remark:
    """Worth knowing about an object though all is as wanted."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done for an object, or why nothing can be. With nothing set it is as wanted."""

    steps: tuple[Step, ...] = ()
    works: str = ""  # goes on by itself: what is awaited
    waits: str = ""  # on another object
    fails: str = ""
    gone: bool = False
    remarks: tuple[Remark, ...] = ()

    def __str__(self) -> str:
        if self.steps:
            return ", ".join(str(step) for step in self.steps)
        for word in ("works", "waits", "fails"):
            if text := getattr(self, word):
                return f"{word}: {text}"
        if self.gone:
            return "gone"
        return " ".join(remark.type for remark in self.remarks) or "-"


AS_WANTED = Verdict()
GONE = Verdict(gone=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """A verdict on each object of the slice, and what is on the host and in no slice."""

    verdicts: Mapping[str, Verdict]
    strangers: tuple[str, ...] = ()

    @property
    def steps(self) -> list[Step]:
        return [step for verdict in self.verdicts.values() for step in verdict.steps]
