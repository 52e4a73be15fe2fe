"""All crash points there are, as the source names them."""

import re

from tests.kaktus.hosts import REPOSITORY

# The programs of the stack, and what both stand on.
_PLACES = ("agent_kaktus", "server/kahuna", "sdk/kowa/runtime")
_NAMED = re.compile(r'\breach\("([a-z._]+)"\)')
_STEP = re.compile(r'\b(?:Step\(\s*|verb = )("[a-z ]+"(?: if [^,\n]+ else "[a-z ]+")?)')
_VERB = re.compile(r'"([a-z ]+)"')


def crash_points() -> set[str]:
    """A step of the agent has one behind it, named by its verb; all others stand where they are reached."""
    found = set()
    for place in _PLACES:
        for path in (REPOSITORY / place).rglob("*.py"):
            text = path.read_text()
            found.update(_NAMED.findall(text))
            if place == "agent_kaktus":
                verbs = [verb for step in _STEP.findall(text) for verb in _VERB.findall(step)]
                found.update(f"kaktus.{verb.title().replace(' ', '')}" for verb in verbs)
    return found
