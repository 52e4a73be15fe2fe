"""The least steps that turn what is into what is wanted. Pure: the text of it is the test.

Only an explicit GONE removes anything. What bears our mark, or a name as we give them, and is in no slice is named as a
stranger and left alone. A step is planned when all it stands on is there; what stands on it follows with the next look.
"""

from typing import Any

from agent_kaktus.kind import Kind
from agent_kaktus.verdict import Plan, Verdict
from agent_kaktus.view import View
from kowa.runtime.desired import Kinds


def plan(kinds: Kinds[Kind[Any]], view: View) -> Plan:
    """A verdict on each object, in the order of the kinds."""
    verdicts: dict[str, Verdict] = {}
    for wanted in view.desired:
        given_up = "" if wanted.gone else view.memory.why_given_up(wanted)
        verdicts[wanted.id] = Verdict(fails=given_up) if given_up else kinds.of(wanted).plan(view, wanted)
    return Plan(verdicts, tuple(sorted(found for kind in kinds for found in kind.strangers(view))))
