"""Assignments as values, for Kahuna and its agents: what an agent shall do about one object, and what it holds."""

from typing import NamedTuple

from kowa.fleet.v1 import assignment_pb2
from kowa.fleet.v1.assignment_pb2 import Demand as Demand
from kowa.fleet.v1.assignment_pb2 import DomainState as DomainState

PREPARE = assignment_pb2.DEMAND_PREPARE
PRESENT = assignment_pb2.DEMAND_PRESENT
RELEASED = assignment_pb2.DEMAND_RELEASED
GONE = assignment_pb2.DEMAND_GONE
SWITCHED = assignment_pb2.DEMAND_SWITCHED

NO_DOMAIN = assignment_pb2.DOMAIN_STATE_UNSPECIFIED
INCOMING = assignment_pb2.DOMAIN_STATE_INCOMING
STOPPED = assignment_pb2.DOMAIN_STATE_STOPPED
RUNNING = assignment_pb2.DOMAIN_STATE_RUNNING


class HandOver(NamedTuple):
    """An order to hand a running machine over to another agent, at the epoch of that one's PREPARE."""

    target: str
    epoch: int


class Holding(NamedTuple):
    """What an agent holds of an object, is sent, or has carried out. The generation is 0 unless it is PRESENT."""

    demand: Demand
    epoch: int
    generation: int = 0
    hand_over: HandOver | None = None


class Listing(NamedTuple):
    """What an agent lists of an object when a session opens: what is stored, and what stands on the host.

    `can_write` is false only if the storage refuses its user, as it does once the host is fenced. Storage that does not
    answer is no fence: the machine may go on when it does.
    """

    holding: Holding | None
    domain: DomainState = NO_DOMAIN
    can_write: bool = True
