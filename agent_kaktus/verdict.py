"""Verdicts: what a plan says of each object."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent_kaktus.step import Step


@dataclass(frozen=True, slots=True)
class Condition:
    """Worth knowing about an object though it is as wanted. Kahuna adds since when it holds."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The steps that an object needs, or why it can have none now. With nothing set it is as wanted."""

    steps: tuple[Step, ...] = ()
    works: str = ""  # what goes on by itself and is awaited
    waits: str = ""  # for another object
    fails: str = ""
    gone: bool = False
    conditions: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        if self.steps:
            return ", ".join(str(step) for step in self.steps)
        for word in ("works", "waits", "fails"):
            if text := getattr(self, word):
                return f"{word}: {text}"
        if self.gone:
            return "gone"
        return " ".join(condition.type for condition in self.conditions) or "-"


AS_WANTED = Verdict()
GONE = Verdict(gone=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """A verdict on each object of the slice, and what is on the host and in no slice."""

    verdicts: Mapping[str, Verdict]
    strangers: tuple[str, ...] = ()

    @property
    def steps(self) -> list[Step]:
        """All of them."""
        return [step for verdict in self.verdicts.values() for step in verdict.steps]
