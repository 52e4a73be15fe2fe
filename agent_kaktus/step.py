"""Steps: what a plan is made of. A step is a value that carries itself out, and can be repeated.

Steps say `LocalHost` for the host, since they use its drivers; a simulation gives them something that has the same.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from agent_kaktus.memory import Memory
from kowa.runtime.desired import DesiredObject


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the host. Its text is in tests, logs and reports; its class names the crash point behind it."""

    async def do(self, host: Any) -> None:
        """Carries it out with the drivers of a host. Raises StepFailed or OSError with the reason."""
        raise NotImplementedError

    def before(self, memory: Memory, now: float) -> None:
        """Notes what must be known though it fails."""

    def after(self, memory: Memory, now: float) -> None:
        """Notes what must be known once it is done."""


D = TypeVar("D", bound=DesiredObject)


@dataclass(frozen=True, slots=True)
class ObjectStep(Step, Generic[D]):
    """A step for one object. Its text is a verb and the object's name."""

    verb: ClassVar[str]
    wanted: D

    def __str__(self) -> str:
        return f"{self.verb} {self.wanted.name}"
