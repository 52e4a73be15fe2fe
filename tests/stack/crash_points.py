"""All crash points there are, as the source names them."""

import re

from agent_kaktus.compute.steps import DomainStep
from agent_kaktus.kinds import KINDS
from agent_kaktus.plan import ObjectStep, Step
from tests.kaktus.hosts import REPOSITORY

# The programs of the stack, and what both stand on.
_PLACES = ("agent_kaktus", "server/kahuna", "sdk/kowa/runtime")
_NAMED = re.compile(r'\breach\("([a-z._]+)"\)')


def crash_points() -> set[str]:
    """A step of the agent has one behind it; all others stand where they are reached."""
    assert KINDS, "with them all steps are imported"
    steps = {step.__name__ for step in _subclasses(Step)} - {ObjectStep.__name__, DomainStep.__name__}
    found = {f"kaktus.{step}" for step in steps}
    for place in _PLACES:
        for path in (REPOSITORY / place).rglob("*.py"):
            found.update(_NAMED.findall(path.read_text()))
    return found


def _subclasses(class_: type) -> set[type]:
    direct: set[type] = set(class_.__subclasses__())
    return direct.union(*map(_subclasses, direct))
