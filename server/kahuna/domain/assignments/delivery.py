"""What an agent may be sent of an object that must exist once, judged at the time of sending."""

from enum import Enum
from typing import NamedTuple

from kahuna.domain.assignments.assignment import Region
from kahuna.domain.assignments.exclusive import Exclusive, may_be_given
from kowa.assignments import GONE, PRESENT, Demand, HandOver, Holding


class Reason(Enum):
    """Why an object, or what is to be sent of it, waits."""

    HOST_OFFLINE = "HOST_OFFLINE"  # for agents that are not connected
    HELD_ELSEWHERE = "HELD_ELSEWHERE"  # other agents say that they hold it
    NOT_RELEASED = "NOT_RELEASED"  # connected agents have not let go yet
    NOT_LISTED = "NOT_LISTED"  # connected agents have not said yet what they hold
    FENCED = "FENCED"  # the holder's fence stands


class Waiting(NamedTuple):
    """Why something waits, and for which agents."""

    reason: Reason
    agents: tuple[str, ...]


def to_send(object_: Exclusive, region: Region, agent: str, told: Holding | None) -> Holding | Waiting | None:
    """What an agent shall hold of an object; none if it shall hold nothing. `told`: what it lists or was sent."""
    own = object_.of(agent)
    if own is None:
        return None
    if waiting := obstacle(object_, region, agent, told):
        return waiting
    if own.demand != PRESENT:
        return Holding(own.demand, own.epoch)
    return Holding(own.demand, own.epoch, object_.generation, order_to_hand_over(object_, agent))


def order_to_hand_over(object_: Exclusive, agent: str) -> HandOver | None:
    """The order for a source: only once the target has reported that it is prepared."""
    target = object_.of(object_.moving_to) if object_.moving_to and agent == object_.holder else None
    return HandOver(target.agent, target.epoch) if target and target.applied else None


def obstacle(object_: Exclusive, region: Region, agent: str, told: Holding | None) -> Waiting | None:
    """Why an agent can't be sent its assignment now."""
    own = object_.of(agent)
    if own is None or own.demand not in exclusive_demands():
        return None
    if not may_be_given(region, agent):
        return Waiting(Reason.FENCED, (agent,))
    if own.demand == GONE or not is_listed_present(told):
        blockers = [each.agent for each in object_.others(agent) if blocks(own.demand, each.agent, region)]
        if blockers:
            return _waiting(region, Reason.NOT_RELEASED, blockers)
    return uncertainty(object_, region, agent) if object_.uncertain else None


def exclusive_demands() -> frozenset[Demand]:
    """The demands that are given to one agent only, and after a start of Kahuna not before it is known who holds it."""
    return frozenset({PRESENT, GONE})


def is_listed_present(told: Holding | None) -> bool:
    """Whether an agent lists the object as PRESENT, or was sent it so in this session."""
    return told is not None and told.demand == PRESENT


def blocks(demand: Demand, other: str, region: Region) -> bool:
    """Whether another agent's assignment keeps a demand from being sent. The fenced can't run, but may hold files."""
    return demand == GONE or other not in region.fenced


def uncertainty(object_: Exclusive, region: Region, agent: str) -> Waiting | None:
    """Why an agent can't have an object after a start of Kahuna: another holds it, or might."""
    if elsewhere := object_.found - {agent}:
        return Waiting(Reason.HELD_ELSEWHERE, tuple(sorted(elsewhere)))
    if agent in object_.found and not is_leaving(object_, agent):
        return None
    silent = region.silent - {agent}
    return _waiting(region, Reason.NOT_LISTED, silent) if silent else None


def is_leaving(object_: Exclusive, agent: str) -> bool:
    """Whether an agent that holds the object may hand it over at any time: it has an order for that."""
    return agent in object_.leaving


def waits_for(object_: Exclusive, region: Region) -> Waiting | None:
    """Why an object is not with its holder yet, for people; none if only the holder's own work is missing."""
    if not may_be_given(region, object_.holder):
        return Waiting(Reason.FENCED, (object_.holder,))
    if object_.uncertain and (waiting := uncertainty(object_, region, object_.holder)):
        return waiting
    others = [each.agent for each in object_.others(object_.holder) if each.agent != object_.moving_to]
    if others:
        return _waiting(region, Reason.NOT_RELEASED, others)
    offline = {object_.holder, object_.moving_to} - region.connected - {""}
    return Waiting(Reason.HOST_OFFLINE, tuple(sorted(offline))) if offline else None


def _waiting(region: Region, reason: Reason, agents: "list[str] | frozenset[str]") -> Waiting:
    """Waiting for agents. Those that are offline are named first: nothing happens before they are back."""
    offline = sorted(set(agents) - region.connected)
    return Waiting(Reason.HOST_OFFLINE, tuple(offline)) if offline else Waiting(reason, tuple(sorted(agents)))
