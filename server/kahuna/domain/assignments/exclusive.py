"""Objects that must exist once, such as a machine and its disk: one agent holds them, and they can move.

Each event returns the object with all that follows from it, for the same transaction.
"""

from typing import NamedTuple

from kahuna.domain.assignments.assignment import Assignment, Region, Row, put, with_new_generation, without
from kowa.assignments import GONE, PREPARE, PRESENT, RELEASED, Demand, Holding


class Exclusive(NamedTuple):
    """An object that must exist once.

    `holder` is the agent that shall have it; `moving_to` the target of a live move. `begun`: some agent may have been
    sent it. After a start of Kahuna `uncertain` is set until it is known who holds the object; meanwhile `found` has
    the agents that say they hold it, `leaving` those of them that have an order to hand it over.
    """

    holder: str
    generation: int = 1
    row: Row = Row.LIVE
    assignments: tuple[Assignment, ...] = ()
    highest_epoch: int = 0  # of those given or heard of
    moving_to: str = ""
    begun: bool = False
    uncertain: bool = False
    found: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()

    def of(self, agent: str) -> Assignment | None:
        """The assignment of an agent."""
        return next((assignment for assignment in self.assignments if assignment.agent == agent), None)

    def others(self, agent: str) -> tuple[Assignment, ...]:
        """The assignments of all agents but one."""
        return without(self.assignments, agent)

    def with_assignment(self, assignment: Assignment) -> "Exclusive":
        """With an assignment in place of that agent's last."""
        return self._replace(assignments=put(self.assignments, assignment))

    def without_finding(self, agent: str) -> "Exclusive":
        """Without what an agent said it holds."""
        return self._replace(found=self.found - {agent}, leaving=self.leaving - {agent})


# Events. Whether a move may begin, `moves` says.


def created(holder: str, region: Region) -> Exclusive:
    """A new object. Nothing older than it can hold it, so it is certain."""
    return follow(Exclusive(holder), region)


def changed(object_: Exclusive, region: Region, generation: int, *, runs: bool = True) -> Exclusive:
    """A new generation, which only concerns who has it: the others hold nothing of it or let it go."""
    assignments = with_new_generation(object_.assignments)
    moving_to = still_moving_to(object_, runs=runs)
    return follow(object_._replace(generation=generation, assignments=assignments, moving_to=moving_to), region)


def marked(object_: Exclusive, region: Region) -> Exclusive:
    """Marked for deletion."""
    return follow(object_._replace(row=Row.MARKED), region)


def moved(object_: Exclusive, region: Region, target: str) -> Exclusive:
    """Another agent shall have it, once the present one has let go."""
    return follow(object_._replace(holder=target), region)


def live_move_begun(object_: Exclusive, region: Region, target: str) -> Exclusive:
    """A live move begins: the target prepares."""
    return follow(assigned(object_._replace(moving_to=target), region, target, PREPARE), region)


def live_move_ended(object_: Exclusive, region: Region) -> Exclusive:
    """A live move is called off."""
    return follow(object_._replace(moving_to=""), region)


def session_opened(object_: Exclusive, agent: str) -> Exclusive:
    """A session of an agent begins: its assignment may be sent from now on."""
    own = object_.of(agent)
    return object_ if own is None else object_.with_assignment(own._replace(sent=True))._replace(begun=True)


def fence_read(object_: Exclusive, region: Region, agent: str, successor: str, told: Holding | None) -> Exclusive:
    """The fence of an agent was read from the storage; `region` has it. If it was the holder, the successor is.

    Without another agent the successor is the fenced one itself, which then waits for its own return. `told`: what the
    agent lists of the object, or was sent, if it is connected.
    """
    may_have_it = object_.of(agent) is not None or agent in object_.found or told is not None
    ends_move = agent in (object_.holder, object_.moving_to)
    holder = successor if object_.holder == agent else object_.holder
    moving_to = "" if ends_move else object_.moving_to
    object_ = object_.without_finding(agent)._replace(holder=holder, moving_to=moving_to)
    if may_have_it and object_.row != Row.REMOVED:
        object_ = assigned(object_, region, agent, RELEASED)
    return follow(object_, region)


def forgotten(object_: Exclusive, region: Region, agent: str, successor: str) -> Exclusive:
    """An agent was forgotten; `region` is without it. Its storage user must have been taken away before."""
    holder = successor if object_.holder == agent else object_.holder
    ends_move = agent in (object_.holder, object_.moving_to)
    object_ = object_.without_finding(agent)._replace(holder=holder, assignments=object_.others(agent))
    return follow(object_._replace(moving_to="" if ends_move else object_.moving_to), region)


def restarted(object_: Exclusive) -> Exclusive:
    """After a start or a restore of Kahuna nothing concluded before is trusted: the database may be an older one."""
    assignments = tuple(each._replace(sent=counts_as_sent(each, False, True)) for each in object_.assignments)
    unknown: frozenset[str] = frozenset()
    return object_._replace(assignments=assignments, begun=True, uncertain=True, found=unknown, leaving=unknown)


def handed_over(object_: Exclusive, region: Region, source: str, target: str) -> Exclusive:
    """The source has stored that it handed the machine over. From now on only the target may run it, if it can."""
    can_run = target in region.agents and target not in region.fenced
    object_ = object_.without_finding(source)._replace(holder=target if can_run else source, moving_to="")
    return assigned(object_, region, source, RELEASED)


# What follows


def follow(object_: Exclusive, region: Region) -> Exclusive:
    """The object with the assignments that follow from it. Called at the end of each event, in its transaction."""
    if object_.row == Row.REMOVED:
        return object_
    if object_.uncertain and is_certain(object_, region):
        object_ = object_._replace(uncertain=False)
    if object_.row == Row.MARKED:
        object_ = object_._replace(moving_to="")
    object_ = _take_from_others(object_, region)
    object_ = object_._replace(assignments=tuple(each for each in object_.assignments if not has_released(each)))
    if may_be_given(region, object_.holder):
        object_ = _give_to_holder(object_, region)
    if not object_.uncertain:
        object_ = object_._replace(found=frozenset(), leaving=frozenset())
    return object_


def is_certain(object_: Exclusive, region: Region) -> bool:
    """Whether it is known who holds the object: all agents have answered, and what was found has an assignment."""
    if region.silent or object_.found - {object_.holder}:
        return False
    return object_.holder not in object_.found or object_.of(object_.holder) is not None


def _take_from_others(object_: Exclusive, region: Region) -> Exclusive:
    """The others let go first. What can't have been sent to one needs no answer."""
    for each in object_.others(object_.holder):
        if each.demand in (PRESENT, GONE) or (each.demand == PREPARE and each.agent != object_.moving_to):
            if each.sent:
                object_ = assigned(object_, region, each.agent, RELEASED)
            else:
                object_ = object_._replace(assignments=object_.others(each.agent))
    if object_.row == Row.MARKED and object_.uncertain:
        for agent in sorted(object_.found - {object_.holder}):
            if object_.of(agent) is None:
                object_ = assigned(object_, region, agent, RELEASED)
    return object_


def _give_to_holder(object_: Exclusive, region: Region) -> Exclusive:
    own, others = object_.of(object_.holder), object_.others(object_.holder)
    demand = own.demand if own else None
    if object_.row == Row.LIVE:
        if demand != PRESENT and all(lets_holder_have_it(each, region) for each in others):
            return assigned(object_, region, object_.holder, PRESENT)
    elif not others:
        if (demand == GONE and own and own.applied) or was_never_sent(object_):
            return object_._replace(row=Row.REMOVED, assignments=())
        if demand != GONE:
            return assigned(object_, region, object_.holder, GONE)
    return object_


def still_moving_to(object_: Exclusive, *, runs: bool) -> str:
    """The target of a live move after a change. What shall be stopped can't be handed over any more: its move ends."""
    return object_.moving_to if runs else ""


def was_never_sent(object_: Exclusive) -> bool:
    """Whether no agent can have made anything of an object, so that there is nothing to destroy."""
    return not object_.begun


def has_released(assignment: Assignment) -> bool:
    """Whether an agent has reported that it let go, which ends its assignment."""
    return assignment.demand == RELEASED and assignment.applied


def may_be_given(region: Region, agent: str) -> bool:
    """Whether an agent may be given anything: not while its fence stands."""
    return agent not in region.fenced


def lets_holder_have_it(other: Assignment, region: Region) -> bool:
    """Whether another agent's assignment lets the holder have the object: that one can't write, or never ran it."""
    return other.agent in region.fenced or other.demand == PREPARE


def assigned(object_: Exclusive, region: Region, agent: str, demand: Demand) -> Exclusive:
    """The object with a new assignment, at a new epoch."""
    epoch = object_.highest_epoch + 1
    sent = counts_as_sent(object_.of(agent), agent in region.connected, object_.uncertain)
    object_ = object_._replace(highest_epoch=epoch, begun=object_.begun or sent)
    return object_.with_assignment(Assignment(agent, demand, epoch, sent))


def counts_as_sent(before: Assignment | None, connected: bool, uncertain: bool) -> bool:
    """Whether a new assignment counts as sent.

    What was once sent to an agent counts as sent, through all later epochs and restores, until it reports RELEASED.
    """
    return connected or uncertain or (before is not None and before.sent)
