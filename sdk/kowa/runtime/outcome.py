"""Reports on objects: what a verdict, and the failures of its steps, mean to Kahuna."""

from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import DesiredObject
from kowa.runtime.notes import MAX_ATTEMPTS, Notes
from kowa.runtime.verdict import Verdict

ENDED = (fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED)


def report_of(notes: Notes, wanted: DesiredObject, verdict: Verdict, resource: Message) -> fleet_pb2.Report:
    """The report of an object that was planned; notes the generation that is applied."""
    outcome, message = outcome_of(notes, wanted, verdict)
    if outcome == fleet_pb2.OUTCOME_APPLIED:
        notes.applied[wanted.id] = wanted.generation
    return fleet_pb2.Report(
        id=wanted.id,
        observed_generation=wanted.generation if outcome in ENDED else _applied_generation(notes, wanted),
        gone=verdict.gone,
        resource=resources.pack(resource),
        outcome=outcome,
        message=message,
    )


def unseen_report_of(notes: Notes, wanted: DesiredObject, resource: Message, reason: str) -> fleet_pb2.Report:
    """The report of an object that can't be observed now."""
    return fleet_pb2.Report(
        id=wanted.id,
        observed_generation=_applied_generation(notes, wanted),
        resource=resources.pack(resource),
        outcome=fleet_pb2.OUTCOME_WAITING,
        message=reason,
    )


def _applied_generation(notes: Notes, wanted: DesiredObject) -> int:
    """The generation that was applied last; 0 for a later one, since Kahuna's database has then gone back."""
    applied = notes.applied.get(wanted.id, 0)
    return applied if applied <= wanted.generation else 0


def outcome_of(notes: Notes, wanted: DesiredObject, verdict: Verdict) -> tuple[fleet_pb2.Outcome, str]:
    """The outcome and its message. Nothing has failed while a fallback is still due."""
    if verdict.steps and (failure := notes.failure_of(wanted)):
        if failure.attempts >= MAX_ATTEMPTS and not verdict.fallback:
            return fleet_pb2.OUTCOME_FAILED, failure.reason
        fallback = f"; then {verdict.fallback}" if verdict.fallback else ""
        return fleet_pb2.OUTCOME_WAITING, f"tries again: {failure.reason}{fallback}"
    if verdict.steps or verdict.working:
        return fleet_pb2.OUTCOME_WORKING, verdict.working or str(verdict)
    if verdict.waits:
        return fleet_pb2.OUTCOME_WAITING, f"waits for {verdict.waits}"
    if verdict.fails:
        return fleet_pb2.OUTCOME_FAILED, verdict.fails
    return fleet_pb2.OUTCOME_APPLIED, ""
