"""Whether an object that must exist once may be moved to another agent: by a new start there, or live."""

from kahuna.domain.assignments.assignment import Region, Row
from kahuna.domain.assignments.exclusive import Exclusive
from kowa.assignments import PRESENT


def obstacle_to_move(object_: Exclusive, region: Region, target: str) -> str:
    """Why an object can't be moved to an agent, and the remedy; empty if it can."""
    if object_.row != Row.LIVE:
        return "it is being deleted"
    if object_.moving_to:
        return "a live move is under way; call that off first"
    if target not in region.agents:
        return "that host can't reach it; choose one that does"
    if target in region.fenced:
        return "that host is fenced; choose another, or wait until it has its storage back"
    return ""


def obstacle_to_live_move(object_: Exclusive, region: Region, target: str) -> str:
    """Why an object can't be moved to an agent while it runs, and the remedy; empty if it can."""
    if obstacle := obstacle_to_move(object_, region, target):
        return obstacle
    if target == object_.holder:
        return "it is there already"
    own = object_.of(object_.holder)
    if own is None or own.demand != PRESENT or not own.applied:
        return "its host has not reported it running yet; wait for that, or move it without"
    if object_.uncertain:
        return "not all hosts have said yet, since Kahuna's start, what they hold; wait until they have"
    if object_.others(object_.holder):
        return "another host has not let go of it yet; wait until that has"
    return ""
