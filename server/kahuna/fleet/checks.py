"""What Kahuna believes of an agent's reports: only what follows from what the session has delivered. Pure."""

from enum import StrEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message

from kahuna.domain.validation import status_problem
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import meta_pb2

NOTHING = (0, False)
_OUTCOMES = frozenset(fleet_pb2.Outcome.values()) - {fleet_pb2.OUTCOME_UNSPECIFIED}


class Reason(StrEnum):
    """The reasons to drop a report: labels of a metric, and shown with the agent."""

    OUTSIDE_SLICE = "OUTSIDE_SLICE"  # it is not in the agent's slice, or not any more
    NOT_HELD = "NOT_HELD"  # it has not been delivered yet
    BAD_GENERATION = "BAD_GENERATION"  # a generation that was not delivered
    BAD_GONE = "BAD_GONE"  # gone, though it is not held as GONE at that generation
    BAD_OUTCOME = "BAD_OUTCOME"
    BAD_KIND = "BAD_KIND"  # a resource of another kind, or none
    UNREADABLE = "UNREADABLE"
    BAD_VALUE = "BAD_VALUE"  # a value that the contract rules out


class Drop(NamedTuple):
    """A report that is not believed: the reason, and what is wrong, for people."""

    reason: Reason
    message: str


Held = tuple[int, bool]
"""An object that an agent holds: the generation, and whether it is marked for deletion."""


def listed(claim: Held, current: Held) -> Held:
    """What counts as held of what an agent lists at its sign-in, until it has stored the current one.

    Another program may have listed anything: a later generation, or a deletion, would otherwise be believed.
    """
    generation, gone = claim
    return claim if claim == current or (0 < generation < current[0] and not gone) else NOTHING


def why_dropped(report: fleet_pb2.Report, kind: str, held: Held | None) -> Drop | None:
    """Why a report is not believed. `kind` is the object's full name in the contract, empty if not in the slice."""
    if not kind:
        return Drop(Reason.OUTSIDE_SLICE, "it is not in the agent's slice")
    if held is None or held == NOTHING:
        return Drop(Reason.NOT_HELD, "the agent has not stored it in this session")
    generation, gone = held
    if not 0 <= report.observed_generation <= generation:
        words = f"observed_generation is {report.observed_generation}, and the agent holds {generation}"
        return Drop(Reason.BAD_GENERATION, words)
    if report.outcome not in _OUTCOMES:
        return Drop(Reason.BAD_OUTCOME, f"outcome is {report.outcome}, which is none of its values")
    if report.gone and (report.observed_generation, True) != held:
        words = f"generation {generation}" + (", to be deleted" if gone else "")
        return Drop(Reason.BAD_GONE, f"gone at generation {report.observed_generation}, and the agent holds {words}")
    if report.gone and report.outcome != fleet_pb2.OUTCOME_APPLIED:
        return Drop(Reason.BAD_OUTCOME, "gone comes with OUTCOME_APPLIED only")
    if report.resource.TypeName() != kind:
        return Drop(Reason.BAD_KIND, f"resource is {report.resource.TypeName()[:64] or 'missing'} instead of {kind}")
    return None


def read(report: fleet_pb2.Report) -> Message | Drop:
    """The resource in a report, or why it is not believed."""
    try:
        observed = resources.unpack(report.resource)
    except DecodeError:
        return Drop(Reason.UNREADABLE, "its resource can't be parsed")
    problem = status_problem(observed)
    return Drop(Reason.BAD_VALUE, problem) if problem else observed


def is_gone(head: meta_pb2.Meta, report: fleet_pb2.Report) -> bool:
    """Whether a report that an object is gone answers the deletion that is stored."""
    return report.gone and head.HasField("delete_time") and report.observed_generation == head.generation
