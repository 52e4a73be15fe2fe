"""Everything that a decision may look at."""

from dataclasses import dataclass, field

from agent_kaktus.actual import Actual
from agent_kaktus.config import HostConfig
from agent_kaktus.memory import Memory
from kowa.runtime.desired import Desired


@dataclass(frozen=True, slots=True)
class View:
    """What is wanted and what is, at one time."""

    config: HostConfig
    desired: Desired
    actual: Actual
    memory: Memory = field(default_factory=Memory)
    now: float = 0.0  # seconds of the loop's clock
    strangers: tuple[str, ...] = ()  # what is on the host and in no slice, once that is planned
