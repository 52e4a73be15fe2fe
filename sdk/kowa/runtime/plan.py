"""Plans: for each object of the slice the fewest steps from the actual to the desired state, or why there are none now.

Each kind has a module of its own that plans it; no other code names a kind. Plans are pure: tests compare their text.
Only an explicit GONE removes anything. An object on the host that has our mark, or a name like ours, but is not in the
slice is reported as a stranger and left alone. A step is planned once all that it depends on exists; the steps that
depend on it follow after the next observation.
"""

from collections.abc import Mapping
from typing import Any

import structlog

from kowa.formats import snake
from kowa.runtime.desired import DesiredObject
from kowa.runtime.kind import View
from kowa.runtime.settings import VERSION
from kowa.runtime.verdict import Verdict

log = structlog.get_logger()


def plan(view: View[Any, Any]) -> dict[str, Verdict]:
    """The verdict on each object, by its id, in the order of the kinds; not on those that can't be observed."""
    return {wanted.id: _plan_safely(view, wanted) for wanted in view.desired if wanted.id not in view.actual.unseen}


def _plan_safely(view: View[Any, Any], wanted: DesiredObject) -> Verdict:
    """Error boundary: an object that can't be planned fails alone."""
    given_up = "" if wanted.gone else view.notes.why_given_up(wanted)
    try:
        return Verdict(fails=given_up) if given_up else view.kinds.of(wanted).plan(view, wanted)
    except Exception as error:
        log.exception("plan.failed", id=wanted.id)
        return Verdict(fails=f"can't be planned, see the agent's log: {error!r}")


def strangers(view: View[Any, Any]) -> list[str]:
    """Objects on the host that are not in the slice."""
    return sorted(found for kind in view.kinds for found in kind.strangers(view))


def drift(view: View[Any, Any], verdicts: Mapping[str, Verdict]) -> list[str]:
    """What the agent once made and is missing, which it never makes anew."""
    missing = ((view.desired.by_id[id_], verdict.fails) for id_, verdict in verdicts.items() if verdict.is_missing)
    return sorted(f"{_noun(view, wanted)} {wanted.name}: {reason}" for wanted, reason in missing)


def fill_node_status(view: View[Any, Any], verdicts: Mapping[str, Verdict], node: Any) -> None:
    """Fills the parts of a node's status that every agent reports."""
    node.status.version = VERSION
    node.status.strangers.extend(strangers(view))
    node.status.drift.extend(drift(view, verdicts))


def _noun(view: View[Any, Any], wanted: DesiredObject) -> str:
    return snake(view.kinds.of(wanted).message.DESCRIPTOR.name).replace("_", " ")
