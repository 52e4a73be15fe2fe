"""An assignment, the agents of a region, and the life of an object's row."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from kowa.assignments import PRESENT, Demand


class Row(IntEnum):
    """The life of an object's row."""

    LIVE = 1
    MARKED = 2  # for deletion
    REMOVED = 3


class Assignment(NamedTuple):
    """What one agent shall do about one object, and whether it has.

    `sent`: it may have been sent, as the agent has had a session since. `applied` and `failed` are what it reported;
    if PRESENT, of the object's present generation.
    """

    agent: str
    demand: Demand
    epoch: int
    sent: bool = False
    applied: bool = False
    failed: bool = False


class Region(NamedTuple):
    """The agents that could hold an object, without the forgotten ones, and what is known of them."""

    agents: frozenset[str]
    connected: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()  # those that have listed what they hold since Kahuna's start
    fenced: frozenset[str] = frozenset()  # those whose fence was read from the storage since Kahuna's start

    @property
    def silent(self) -> frozenset[str]:
        """The agents that may hold something that Kahuna does not know of."""
        return self.agents - self.listed - self.fenced

    def opened(self, agent: str) -> "Region":
        """With a session of an agent."""
        return self._replace(connected=self.connected | {agent})

    def closed(self, agent: str) -> "Region":
        """Without a session of an agent."""
        return self._replace(connected=self.connected - {agent})

    def with_listing(self, agent: str) -> "Region":
        """With an agent that has listed what it holds."""
        return self._replace(listed=self.listed | {agent})

    def with_fence(self, agent: str) -> "Region":
        """With an agent whose fence was read from the storage."""
        return self._replace(fenced=self.fenced | {agent})

    def without_fence(self, agent: str) -> "Region":
        """With an agent whose storage user works again."""
        return self._replace(fenced=self.fenced - {agent})

    def without(self, agent: str) -> "Region":
        """Without a forgotten agent."""
        return Region(*(agents - {agent} for agents in self))

    def restarted(self) -> "Region":
        """After a start or a restore of Kahuna: nobody is connected, and nobody has listed anything."""
        return self._replace(connected=frozenset(), listed=frozenset(), fenced=remembered_fences(self))


def remembered_fences(_: Region) -> frozenset[str]:
    """The fences that are known after a start of Kahuna: none, since an older database may know of ended ones."""
    return frozenset()


def put(assignments: Iterable[Assignment], new: Assignment) -> tuple[Assignment, ...]:
    """The assignments, by agent, with a new one in place of that agent's last."""
    return tuple(sorted([*without(assignments, new.agent), new]))


def without(assignments: Iterable[Assignment], agent: str) -> tuple[Assignment, ...]:
    """The assignments without an agent's."""
    return tuple(assignment for assignment in assignments if assignment.agent != agent)


def with_new_generation(assignments: Iterable[Assignment]) -> tuple[Assignment, ...]:
    """The assignments, none of which has applied or failed at a new generation. Only PRESENT is of a generation."""
    return tuple(each._replace(applied=False, failed=False) if each.demand == PRESENT else each for each in assignments)
