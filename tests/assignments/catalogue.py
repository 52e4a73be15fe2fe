"""What is searched: groups of things that may happen together, and the rules, each needed in one of them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from kahuna.domain.assignments import assignment, delivery, exclusive, fence, intake
from kahuna.domain.assignments.assignment import Region, Row
from kahuna.domain.assignments.exclusive import Exclusive
from kahuna.domain.assignments.intake import Session, Taken
from kowa.assignments import GONE, PRESENT, RELEASED, DomainState, Holding, Listing
from kowa.runtime import assignments as agent_rules
from tests.assignments.search import Result, search
from tests.assignments.steps import Steps
from tests.assignments.world import World, first

MODULES = (assignment, delivery, exclusive, fence, intake, agent_rules)


class Group(NamedTuple):
    """What may happen; how many operations after the creation, faults, and broken streams (-1: any number)."""

    allowed: str
    operations: int
    faults: int
    breaks: int = -1
    hosts: int = 2


GROUPS = {
    "calm": Group("move power delete start", 3, 0),
    "live": Group("live move delete start", 2, 0),
    "live, power": Group("live power delete", 3, 0, 1),
    "hosts": Group("move delete death fence lose forget", 1, 2),
    "hosts, more operations": Group("move delete death fence lose forget", 2, 1),
    "live, hosts": Group("live delete death fence lose", 2, 1),
    "restore": Group("move power delete told", 2, 1, 1),
    "restore, live": Group("live move delete told", 2, 1, 1),
    "restore, hosts": Group("move delete death fence lose forget told", 1, 2, 0),
    "restore untold": Group("move delete untold", 2, 1, 1),
    "three": Group("move delete start", 2, 0, 1, hosts=3),
    "three, live": Group("live move delete", 3, 0, 0, hosts=3),
    "three, restore": Group("move delete told", 2, 1, 0, hosts=3),
    "three, restore, live": Group("live told", 1, 1, 0, hosts=3),
    "three, hosts": Group("move delete death fence forget", 1, 1, 1, hosts=3),
}


class Lack(NamedTuple):
    """A rule taken out, or a bug planted: the group in which it shows, what it violates, and what replaces what.

    `planted` are bugs of the world itself.
    """

    group: str
    violation: str
    replaced: dict[str, Callable[..., Any]] = {}
    planted: frozenset[str] = frozenset()


def run(group: str, lack: Lack | None = None) -> Result:
    """Searches a group with all rules, or with one of them lacking."""
    with bench(group, lack) as (start, steps):
        return search(start, steps)


@contextlib.contextmanager
def bench(group: str, lack: Lack | None = None) -> Iterator[tuple[World, Steps]]:
    """A group's first world and its steps, with all rules, or with one of them lacking while this is open."""
    allowed, operations, faults, breaks, hosts = GROUPS[group]
    with lacking(lack.replaced if lack else {}):
        planted = lack.planted if lack else frozenset()
        yield first(hosts, operations, faults, breaks), Steps(frozenset(allowed.split()), planted)


@contextlib.contextmanager
def lacking(replaced: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Replaces functions of the rules, wherever they are used."""
    with contextlib.ExitStack() as stack:
        for name, replacement in replaced.items():
            modules = [module for module in MODULES if hasattr(module, name)]
            assert modules, f"no rule is called {name}"
            for module in modules:
                stack.enter_context(mock.patch.object(module, name, replacement))
        yield


def _always(*_: object, **__: object) -> bool:
    return True


def _never(*_: object, **__: object) -> bool:
    return False


def _no_switch(held: Holding) -> Holding:
    return held


def _sent_while_connected(_: object, connected: bool, __: bool) -> bool:
    return connected


def _present_alone() -> frozenset[int]:
    return frozenset({PRESENT})


def _present_in_store(held: Holding | None) -> bool:
    return held is not None and held.demand == PRESENT


def _kept_unless_done(held: Holding | None, _: DomainState, *, done: bool) -> Holding | None:
    return None if held is None or (held.demand in (RELEASED, GONE) and done) else held


def _destroyed(held: Holding | None, _: DomainState, *, done: bool) -> Holding | None:
    return held and held._replace(demand=GONE)


def _present_or_gone(listing: Listing) -> bool:
    return intake.holds_by_store(listing.holding)


def _fences_of_before(region: Region) -> frozenset[str]:
    return region.fenced


def _moves_on(object_: Exclusive, *, runs: bool) -> str:
    return object_.moving_to


def _as_if_not_fenced(object_: Exclusive, region: Region, agent: str, listing: Listing) -> bool:
    return _is_to_be_taken_back(object_, region.without_fence(agent), agent, listing._replace(can_write=True))


def _holder_was_never_sent(object_: Exclusive) -> bool:
    own = object_.of(object_.holder)
    return own is None or not own.sent


_follow, _take_listing = exclusive.follow, intake.take_listing
_is_to_be_taken_back = intake.is_to_be_taken_back


def _gone_from_the_mark(object_: Exclusive, region: Region) -> Exclusive:
    if object_.row != Row.MARKED:
        return _follow(object_, region)
    for each in object_.assignments:
        if each.demand != GONE:
            object_ = exclusive.assigned(object_, region, each.agent, GONE)
    if all(each.applied for each in object_.assignments):
        return object_._replace(row=Row.REMOVED, assignments=())
    return object_


def _gone_sent_to_all(object_: Exclusive, region: Region, agent: str, told: Holding | None) -> delivery.Waiting | None:
    own = object_.of(agent)
    return None if own and own.demand == GONE else _obstacle(object_, region, agent, told)


_obstacle = delivery.obstacle


def _nothing_is_released(
    object_: Exclusive, region: Region, agent: str, session: Session, listing: Listing
) -> Taken[Exclusive]:
    taken = _take_listing(object_, region, agent, session, listing)
    own = taken.object.of(agent)
    if own and own.demand == RELEASED and (listing.holding is None or listing.holding.demand == RELEASED):
        return Taken(exclusive.follow(taken.object.with_assignment(own._replace(applied=True)), region))
    return taken


# Each rule that is easily left out, with the function that is it.
RULES = {
    "a hand over is stored": Lack("live", "never two", {"hand_over": _no_switch}),
    "a key comes after RELEASED": Lack("hosts", "never two", {"may_get_key": _always}),
    "nothing is given to the fenced": Lack("hosts", "never two", {"may_be_given": _always}),
    "who is forgotten is fenced before": Lack("hosts", "never two", {"may_be_forgotten": _always}),
    "GONE waits like PRESENT": Lack("restore", "disk safe", {"exclusive_demands": _present_alone}),
    "leftovers are taken back": Lack(
        "restore",
        "disk safe",
        {"is_to_be_taken_back": _never, "holds_by_store": _present_in_store, "after_removal": _kept_unless_done},
    ),
    "once sent is sent": Lack("calm", "never two", {"counts_as_sent": _sent_while_connected}),
    "the source is asked again": Lack(
        "live, hosts", "never two", {"is_listed_present": _always, "has_lost_it": _never}
    ),
    "an order to hand over is no holding": Lack("restore, live", "disk safe", {"is_leaving": _never}),
    "holdings are what stands on the host": Lack("restore, hosts", "never two", {"holds": _present_or_gone}),
    "fences are read again": Lack("restore, hosts", "never two", {"remembered_fences": _fences_of_before}),
    "every start is like a restore": Lack("restore untold", "never two", planted=frozenset({"every start"})),
}
# Rules that the two hosts of the reference do not need, or that it leaves out.
RULES |= {
    "a stop ends a live move": Lack("live, power", "never stuck", {"still_moving_to": _moves_on}),
    "what the fenced list is taken back": Lack(
        "restore, hosts", "never stuck", {"is_to_be_taken_back": _as_if_not_fenced}
    ),
    "what was begun is destroyed": Lack("calm", "never stuck", {"was_never_sent": _holder_was_never_sent}),
}
BUGS = {
    "GONE follows from the mark": Lack(
        "live", "disk safe", {"follow": _gone_from_the_mark, "obstacle": _gone_sent_to_all}
    ),
    "PRESENT goes out before RELEASED came": Lack(
        "calm", "never two", {"lets_holder_have_it": _always, "blocks": _never}
    ),
    "nothing counts as RELEASED": Lack("calm", "never two", {"take_listing": _nothing_is_released}),
    "listings are not waited for": Lack("restore", "never two", {"uncertainty": lambda *_: None}),
    "ended sessions are believed": Lack(
        "restore", "never two", {"is_living": _always}, frozenset({"session not checked"})
    ),
    "a fenced host starts with its key": Lack("hosts", "never two", planted=frozenset({"fenced host starts"})),
    "what is removed is destroyed": Lack("calm", "disk safe", {"after_removal": _destroyed}),
}

LACKS = {f"without '{name}'": lack for name, lack in RULES.items()} | {
    f"with the bug '{name}'": lack for name, lack in BUGS.items()
}
TRACES = Path(__file__).with_name("traces.txt")  # of those lacks that end with a twin or a lost disk
