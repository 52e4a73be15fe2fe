"""Objects that several agents hold at the same time, such as a vnet: each makes it on its own host and undoes it there.

No agent's part is another's, so nobody waits for anybody: an assignment for each holder, made and released one by one.
"""

from collections.abc import Set
from typing import NamedTuple

from kahuna.domain.assignments.assignment import Assignment, Region, Row, put, with_new_generation, without
from kahuna.domain.assignments.intake import (
    MAX_EPOCHS_AHEAD,
    Dropped,
    Session,
    Taken,
    believed,
    is_living,
    is_of_generation,
)
from kowa.assignments import NO_DOMAIN, PRESENT, RELEASED, Demand, Holding, Listing
from kowa.v2 import meta_pb2


class Shared(NamedTuple):
    """An object that several agents hold. `holders` are those that shall."""

    holders: frozenset[str] = frozenset()
    generation: int = 1
    row: Row = Row.LIVE
    assignments: tuple[Assignment, ...] = ()
    highest_epoch: int = 0  # of those given or heard of

    def of(self, agent: str) -> Assignment | None:
        """The assignment of an agent."""
        return next((assignment for assignment in self.assignments if assignment.agent == agent), None)

    def with_assignment(self, assignment: Assignment) -> "Shared":
        """With an assignment in place of that agent's last."""
        return self._replace(assignments=put(self.assignments, assignment))


class Summary(NamedTuple):
    """How far the holders are: all are agents, by outcome. Those that are offline hold up nobody."""

    applied: tuple[str, ...]
    lagging: tuple[str, ...]
    failed: tuple[str, ...]
    offline: tuple[str, ...]

    @property
    def state(self) -> meta_pb2.State:
        """The state of an object that is not marked: as one connected holder has it, once none of them lags."""
        if self.failed:
            return meta_pb2.STATE_ERROR
        if self.lagging or (self.offline and not self.applied):
            return meta_pb2.STATE_PENDING
        return meta_pb2.STATE_READY

    @property
    def is_deleted(self) -> bool:
        """Whether the deletion of a marked object has ended: all that are connected have released it."""
        return not (self.lagging or self.failed)


# Events


def held_by(object_: Shared, region: Region, holders: Set[str]) -> Shared:
    """Other agents shall hold it."""
    return follow(object_._replace(holders=frozenset(holders)), region)


def changed(object_: Shared, region: Region, generation: int) -> Shared:
    """A new generation."""
    assignments = with_new_generation(object_.assignments)
    return follow(object_._replace(generation=generation, assignments=assignments), region)


def marked(object_: Shared, region: Region) -> Shared:
    """Marked for deletion."""
    return follow(object_._replace(row=Row.MARKED), region)


def session_opened(object_: Shared, agent: str) -> Shared:
    """A session of an agent begins: its assignment may be sent from now on."""
    own = object_.of(agent)
    return object_ if own is None else object_.with_assignment(own._replace(sent=True))


def forgotten(object_: Shared, region: Region, agent: str) -> Shared:
    """An agent was forgotten; `region` is without it."""
    holders, assignments = object_.holders - {agent}, without(object_.assignments, agent)
    return follow(object_._replace(holders=holders, assignments=assignments), region)


def restarted(object_: Shared) -> Shared:
    """After a start or a restore of Kahuna, whatever has an assignment counts as sent."""
    return object_._replace(assignments=tuple(each._replace(sent=True) for each in object_.assignments))


# What follows


def follow(object_: Shared, region: Region) -> Shared:
    """The object with the assignments that follow from it. Called at the end of each event, in its transaction."""
    if object_.row == Row.REMOVED:
        return object_
    wanted = (object_.holders & region.agents) - region.fenced if object_.row == Row.LIVE else frozenset()
    for each in object_.assignments:
        if each.demand == RELEASED and each.applied:
            object_ = object_._replace(assignments=without(object_.assignments, each.agent))
        elif each.demand == PRESENT and each.agent not in wanted:
            if each.sent:
                object_ = assigned(object_, region, each.agent, RELEASED)
            else:
                object_ = object_._replace(assignments=without(object_.assignments, each.agent))
    for agent in sorted(wanted):
        own = object_.of(agent)
        if own is None or own.demand != PRESENT:
            object_ = assigned(object_, region, agent, PRESENT)
    if object_.row == Row.MARKED and not object_.assignments:
        return object_._replace(row=Row.REMOVED)
    return object_


def assigned(object_: Shared, region: Region, agent: str, demand: Demand) -> Shared:
    """The object with a new assignment, at a new epoch."""
    before, epoch = object_.of(agent), object_.highest_epoch + 1
    sent = agent in region.connected or (before is not None and before.sent)
    return object_._replace(highest_epoch=epoch).with_assignment(Assignment(agent, demand, epoch, sent))


def to_send(object_: Shared, agent: str) -> Holding | None:
    """What an agent shall hold of an object; none if it shall hold nothing."""
    own = object_.of(agent)
    return own and Holding(own.demand, own.epoch, object_.generation if own.demand == PRESENT else 0)


def summary(object_: Shared, region: Region) -> Summary:
    """How far the holders are. Of a live object those that only let go of it are left out: they are none any more."""
    counted = [each for each in object_.assignments if object_.row != Row.LIVE or each.demand == PRESENT]
    connected = [each for each in counted if each.agent in region.connected]
    return Summary(
        applied=tuple(each.agent for each in connected if each.applied),
        lagging=tuple(each.agent for each in connected if not each.applied and not each.failed),
        failed=tuple(each.agent for each in connected if each.failed),
        offline=tuple(each.agent for each in counted if each.agent not in region.connected),
    )


# What agents say


def take_listing(object_: Shared, region: Region, agent: str, session: Session, listing: Listing) -> Taken[Shared]:
    """Takes what an agent lists of an object. What it holds without an assignment it is told to release."""
    if not is_living(session):
        return Taken(object_, Dropped.ENDED_SESSION)
    held, own = listing.holding, object_.of(agent)
    if held and held.epoch > object_.highest_epoch + MAX_EPOCHS_AHEAD:
        return Taken(object_, Dropped.ABSURD_EPOCH)
    if held and object_.row != Row.REMOVED:
        object_ = object_._replace(highest_epoch=max(object_.highest_epoch, held.epoch))
        if own is None and (held.demand != RELEASED or listing.domain != NO_DOMAIN):
            object_ = assigned(object_, region, agent, RELEASED)
    if own and (held is None or (held.demand, held.epoch) != (own.demand, own.epoch)):
        object_ = object_.with_assignment(own._replace(applied=False))
    return Taken(follow(object_, region))


def take_report(object_: Shared, region: Region, agent: str, session: Session, done: Holding) -> Taken[Shared]:
    """Takes an agent's report that it has carried something out."""
    own = believed(object_.of(agent), session, done)
    if isinstance(own, Dropped):
        return Taken(object_, own)
    if not is_of_generation(done, object_.generation):
        return Taken(object_)
    return Taken(follow(object_.with_assignment(own._replace(applied=True, failed=False)), region))
