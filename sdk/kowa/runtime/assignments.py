"""An agent's side of the rules of assignments: what it stores, and what it may do because of what it has stored."""

from kowa.assignments import (
    GONE,
    INCOMING,
    NO_DOMAIN,
    PREPARE,
    PRESENT,
    RELEASED,
    RUNNING,
    SWITCHED,
    DomainState,
    Holding,
)


def to_store(held: Holding | None, sent: Holding | None, *, domain: DomainState, done: bool) -> Holding | None:
    """The holding to store when another is sent; none for `removed`. `done`: what is held has been carried out."""
    if sent is None:
        return after_removal(held, domain, done=done)
    return held if held is not None and is_refused(held, sent) else sent


def after_removal(held: Holding | None, domain: DomainState, *, done: bool) -> Holding | None:
    """The holding to store when an object has left the slice.

    Only what is RELEASED or GONE and carried out is forgotten. An incoming domain that never ran is undone. Anything
    else is left as it is, and reported as unknown: leaving the slice destroys nothing.
    """
    if held is None or (held.demand in (RELEASED, GONE) and done):
        return None
    if held.demand == PREPARE and domain != RUNNING:
        return held._replace(demand=RELEASED)
    return held


def is_refused(held: Holding, sent: Holding) -> bool:
    """Whether the agent keeps what it holds: a machine that was handed over never runs here again at that epoch."""
    return held.demand == SWITCHED and sent.demand == PRESENT and sent.epoch == held.epoch


def hand_over(held: Holding) -> Holding:
    """The holding to store, once the machine is paused, before the target may go on."""
    return held._replace(demand=SWITCHED)


def lets_target_go_on(held: Holding) -> bool:
    """Whether the source may tell the target to go on with the machine that it was handed."""
    return held.demand == SWITCHED and held.hand_over is not None


def accepts(held: Holding | None, domain: DomainState, epoch: int) -> bool:
    """Whether a target takes a machine over: only at exactly the epoch of its PREPARE."""
    return held is not None and held.demand == PREPARE and held.epoch == epoch and domain == INCOMING


def is_carried_out(held: Holding, domain: DomainState, *, exists: bool, can_write: bool, runs: bool) -> bool:
    """Whether a holding may be reported as applied. `exists`: what others can reach; `runs`: it is wanted running."""
    if held.demand == PRESENT:
        return exists and can_write and (domain == RUNNING) == runs
    if held.demand == PREPARE:
        return domain in (INCOMING, RUNNING)
    if held.demand == GONE:
        return domain == NO_DOMAIN and not exists
    return domain == NO_DOMAIN
