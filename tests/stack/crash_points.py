"""Collects the names of all crash points from the source."""

import re

from tests.kaktus.hosts import REPOSITORY

# The programs of the stack, and the runtime they share.
_FOLDERS = ("agent_kaktus", "server/kahuna", "sdk/kowa/runtime")
_CRASH_POINT = re.compile(r'\bcrash_point\("([a-z._]+)"\)')
_STEP = re.compile(r'\b(?:Step\(\s*|verb = )("[a-z ]+"(?: if [^,\n]+ else "[a-z ]+")?)')
_VERB = re.compile(r'"([a-z ]+)"')


def crash_points() -> set[str]:
    """The names of all calls of `crash_point`, and of the agent's steps, after each of which there is one."""
    found = set()
    for folder in _FOLDERS:
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text()
            found.update(_CRASH_POINT.findall(text))
            if folder == "agent_kaktus":
                verbs = [verb for step in _STEP.findall(text) for verb in _VERB.findall(step)]
                found.update(f"kaktus.{verb.title().replace(' ', '')}" for verb in verbs)
    return found
