"""All crash points there are, as the source names them."""

import re

from agent_kaktus.kinds import KINDS
from agent_kaktus.plan import ObjectStep, Step
from tests.kaktus.hosts import REPOSITORY

# The programs of the stack, and what both stand on.
_PLACES = ("agent_kaktus", "server/kahuna", "sdk/kowa/runtime")
_NAMED = re.compile(r'\breach\("([a-z._]+)"\)')


def crash_points() -> set[str]:
    """A step of the agent has one behind it; all others stand where they are reached."""
    assert KINDS, "with them all steps are imported"
    steps = {step.__name__ for step in (*Step.__subclasses__(), *ObjectStep.__subclasses__())}
    found = {f"kaktus.{step}" for step in steps - {ObjectStep.__name__}}
    for place in _PLACES:
        for path in (REPOSITORY / place).rglob("*.py"):
            found.update(_NAMED.findall(path.read_text()))
    return found
