"""When a fenced agent gets a new storage user, and when an agent may be forgotten."""

from collections.abc import Iterable

from kahuna.domain.assignments.exclusive import Exclusive
from kowa.assignments import RELEASED, Holding


def may_get_key(objects: Iterable[Exclusive], agent: str, held: Holding | None) -> bool:
    """Whether a fenced agent may get a new storage user. `held`: what it says that it holds, as it asks for one.

    It must have reported RELEASED for whatever it was assigned, and hold nothing else. That its domains have ended is
    not enough: with a key it would start them again from its store.
    """
    return all(each.of(agent) is None for each in objects) and (held is None or held.demand == RELEASED)


def may_be_forgotten(*, can_write: bool) -> bool:
    """Whether an agent may be forgotten: only once its storage user has been taken away, so that it can't come back."""
    return not can_write
