"""What is believed of what an agent says about an object that must exist once: what follows from what it was told."""

from enum import Enum
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from kahuna.domain.assignments.assignment import Assignment, Region, Row
from kahuna.domain.assignments.exclusive import Exclusive, assigned, follow, handed_over
from kowa.assignments import (
    GONE,
    NO_DOMAIN,
    PREPARE,
    PRESENT,
    RELEASED,
    RUNNING,
    STOPPED,
    SWITCHED,
    Holding,
    Listing,
)

# Epochs above the highest one known that an agent may name: after a restore, at most those given since the backup.
MAX_EPOCHS_AHEAD = 1 << 32


class Assigned(Protocol):
    """An object with assignments: one that must exist once, or a shared one."""

    @property
    def generation(self) -> int: ...

    def of(self, agent: str) -> Assignment | None:
        """The assignment of an agent."""

    def with_assignment(self, assignment: Assignment) -> Self:
        """With an assignment in place of that agent's last."""


Object = TypeVar("Object", bound=Assigned)


class Dropped(Enum):
    """Why something that an agent said is not believed. Counted by reason."""

    ENDED_SESSION = "ENDED_SESSION"  # the session is not the agent's newest
    NOT_ASSIGNED = "NOT_ASSIGNED"  # the agent has no assignment for the object
    OTHER_DEMAND = "OTHER_DEMAND"  # its assignment demands something else
    OTHER_EPOCH = "OTHER_EPOCH"  # its assignment has another epoch
    NOT_DELIVERED = "NOT_DELIVERED"  # this session neither listed nor delivered it
    ABSURD_EPOCH = "ABSURD_EPOCH"  # no Kahuna has given so high an epoch: the session must end


class Session(NamedTuple):
    """What is known of the session on which something is said. `told`: what the agent lists, or was sent in it."""

    told: Holding | None = None
    living: bool = True  # it is the agent's newest


class Taken(NamedTuple, Generic[Object]):
    """An object after something was said of it, and why that was dropped, if it was."""

    object: Object
    dropped: Dropped | None = None


def take_listing(
    object_: Exclusive, region: Region, agent: str, session: Session, listing: Listing
) -> Taken[Exclusive]:
    """Takes what an agent lists of an object. `region` has the agent among those that have listed."""
    if not is_living(session):
        return Taken(object_, Dropped.ENDED_SESSION)
    if object_.row == Row.REMOVED:
        return Taken(object_)
    held, own = listing.holding, object_.of(agent)
    if held and held.epoch > object_.highest_epoch + MAX_EPOCHS_AHEAD:
        return Taken(object_, Dropped.ABSURD_EPOCH)
    if held:
        # Epochs go on above the highest that any agent names: those of a restored database have been used.
        object_ = object_._replace(highest_epoch=max(object_.highest_epoch, held.epoch))
    if own is None and is_to_be_taken_back(object_, region, agent, listing):
        object_ = assigned(object_, region, agent, RELEASED)
    object_ = _with_finding(object_, agent, listing)
    if own and own.demand != GONE and not _is_as_assigned(own, held):
        object_ = object_.with_assignment(own._replace(applied=False))
    if own and held and _has_switched(own, held):
        object_ = _after_switch(object_, region, agent, held)
    elif agent == object_.holder and has_lost_it(held):
        object_ = object_._replace(moving_to="")
    return Taken(follow(object_, region))


def take_report(object_: Exclusive, region: Region, agent: str, session: Session, done: Holding) -> Taken[Exclusive]:
    """Takes an agent's report that it has carried something out."""
    if not is_living(session):
        return Taken(object_, Dropped.ENDED_SESSION)
    own = object_.of(agent)
    if done.demand == SWITCHED:  # whatever it was assigned: it does not run there any more
        object_ = object_.without_finding(agent)
        object_ = _after_switch(object_, region, agent, done) if own and _has_switched(own, done) else object_
        return Taken(follow(object_, region))
    done_of = believed(own, session, done)
    if isinstance(done_of, Dropped):
        return Taken(object_, done_of)
    if not is_of_generation(done, object_.generation):
        return Taken(object_)
    object_ = object_.with_assignment(done_of._replace(applied=True, failed=False))
    if done.demand in (RELEASED, GONE):
        object_ = object_.without_finding(agent)
    return Taken(follow(object_, region))


def take_failure(object_: Object, agent: str, session: Session, attempted: Holding) -> Taken[Object]:
    """Takes an agent's report that it has given something up, also of a shared object."""
    own = believed(object_.of(agent), session, attempted)
    if isinstance(own, Dropped):
        return Taken(object_, own)
    if not is_of_generation(attempted, object_.generation):
        return Taken(object_)
    return Taken(object_.with_assignment(own._replace(applied=False, failed=True)))


def believed(own: Assignment | None, session: Session, said: Holding) -> Assignment | Dropped:
    """The assignment that something said is about, or why it is not believed."""
    if not is_living(session):
        return Dropped.ENDED_SESSION
    if own is None:
        return Dropped.NOT_ASSIGNED
    return mismatch(own, session, said) or own


def is_of_generation(said: Holding, generation: int) -> bool:
    """Whether something said is of a generation. What is said of an older one says nothing of the present one."""
    return said.demand != PRESENT or said.generation == generation


def is_living(session: Session) -> bool:
    """Whether what is said on a session counts."""
    return session.living


def mismatch(own: Assignment, session: Session, done: Holding) -> Dropped | None:
    """Why a report does not follow from what the agent was told."""
    if done.demand != own.demand:
        return Dropped.OTHER_DEMAND
    if done.epoch != own.epoch:
        return Dropped.OTHER_EPOCH
    told = session.told
    if told is None or (told.demand, told.epoch) != (done.demand, done.epoch) or done.generation > told.generation:
        return Dropped.NOT_DELIVERED
    return None


def is_to_be_taken_back(object_: Exclusive, region: Region, agent: str, listing: Listing) -> bool:
    """Whether an agent without an assignment is told RELEASED and waited for: it has something that nobody wants there.

    What it holds as PRESENT, or runs though it was only to prepare, is no leftover: it is the machine. Who is fenced
    has no machine any more, only leftovers.
    """
    held, domain = listing.holding, listing.domain
    if agent in region.fenced or not listing.can_write:
        return domain != NO_DOMAIN or (held is not None and held.demand != RELEASED)
    if held is None or not object_.uncertain:
        return False
    if held.demand == PREPARE:
        return domain != RUNNING
    return held.demand == GONE or (held.demand in (RELEASED, SWITCHED) and domain != NO_DOMAIN)


def holds(listing: Listing) -> bool:
    """Whether an agent holds the object, by its store or by what stands on its host; an incoming domain is none."""
    return holds_by_store(listing.holding) or listing.domain in (STOPPED, RUNNING)


def holds_by_store(held: Holding | None) -> bool:
    """Whether an agent's store says that it holds the object: to run it, or to destroy it."""
    return held is not None and held.demand in (PRESENT, GONE)


def has_lost_it(held: Holding | None) -> bool:
    """Whether a source does not hold the machine any more, which ends its live move."""
    return held is None or held.demand != PRESENT


def _with_finding(object_: Exclusive, agent: str, listing: Listing) -> Exclusive:
    """The object with what was found of it: what can't write holds nothing, and what was handed over neither."""
    held, object_ = listing.holding, object_.without_finding(agent)
    if not (holds(listing) and listing.can_write) or (held and held.demand == SWITCHED):
        return object_
    leaving = object_.leaving | {agent} if held and held.hand_over else object_.leaving
    return object_._replace(found=object_.found | {agent}, leaving=leaving)


def _is_as_assigned(own: Assignment, held: Holding | None) -> bool:
    return held is not None and (held.demand, held.epoch) == (own.demand, own.epoch)


def _has_switched(own: Assignment, said: Holding) -> bool:
    return said.demand == SWITCHED and own.demand == PRESENT and said.epoch == own.epoch


def _after_switch(object_: Exclusive, region: Region, source: str, said: Holding) -> Exclusive:
    return handed_over(object_, region, source, target_of(source, said))


def target_of(source: str, said: Holding) -> str:
    """The target of a hand over, by what its source says: a restored database may not know the move."""
    return said.hand_over.target if said.hand_over else source
