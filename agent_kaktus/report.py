"""Reports: what Kahuna learns of each object."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from agent_kaktus.memory import MAX_ATTEMPTS, Memory
from agent_kaktus.plan import Verdict, View
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import DesiredObject


class Reports:
    """Makes reports; equal facts make equal reports, so that they are not sent again."""

    def __init__(self) -> None:
        self._last: dict[str, Message] = {}

    def all(self, view: View, verdicts: Mapping[str, Verdict]) -> Iterable[fleet_pb2.Report]:
        """One for each object."""
        for wanted in view.desired:
            yield self.one(view, wanted, verdicts[wanted.id])
        for id_ in self._last.keys() - verdicts.keys():
            del self._last[id_]

    def one(self, view: View, wanted: DesiredObject, verdict: Verdict) -> fleet_pb2.Report:
        """What is seen of an object, and its verdict."""
        outcome, message = _outcome(view.memory, wanted, verdict)
        if outcome == fleet_pb2.OUTCOME_APPLIED:
            view.memory.applied[wanted.id] = wanted.generation
        is_ended = outcome in (fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED)
        kind = view.kinds.of(wanted)
        resource: Any = kind.message()
        if not verdict.gone:
            kind.fill_status(view, wanted, resource)
            resource.meta.conditions.extend(verdict.conditions)
            self._last[wanted.id] = resource
        return fleet_pb2.Report(
            id=wanted.id,
            observed_generation=wanted.generation if is_ended else view.memory.applied.get(wanted.id, 0),
            gone=verdict.gone,
            resource=resources.pack(resource),
            outcome=outcome,
            message=message,
        )

    def unseen(self, view: View, reason: str) -> Iterable[fleet_pb2.Report]:
        """While the host can't be observed: what was seen last, without what may have changed since.

        What asks nothing of the host is as wanted, for all that.
        """
        for wanted in view.desired:
            kind = view.kinds.of(wanted)
            if not kind.needs_host:
                yield self.one(view, wanted, Verdict(gone=wanted.gone))
                continue
            resource: Any = kind.message()
            resource.MergeFrom(self._last.get(wanted.id, resource))
            resource.ClearField("meta")
            kind.clear_unseen(resource)
            yield fleet_pb2.Report(
                id=wanted.id,
                observed_generation=view.memory.applied.get(wanted.id, 0),
                resource=resources.pack(resource),
                outcome=fleet_pb2.OUTCOME_WAITING,
                message=reason,
            )


def _outcome(memory: Memory, wanted: DesiredObject, verdict: Verdict) -> tuple[fleet_pb2.Outcome, str]:
    if verdict.steps and (failure := memory.failures.get(wanted.id)):
        if failure.attempts >= MAX_ATTEMPTS:
            return fleet_pb2.OUTCOME_FAILED, failure.reason
        return fleet_pb2.OUTCOME_WAITING, f"tries again: {failure.reason}"
    if verdict.steps or verdict.working:
        return fleet_pb2.OUTCOME_WORKING, verdict.working or str(verdict)
    if verdict.waits:
        return fleet_pb2.OUTCOME_WAITING, f"waits for {verdict.waits}"
    if verdict.fails:
        return fleet_pb2.OUTCOME_FAILED, verdict.fails
    return fleet_pb2.OUTCOME_APPLIED, ""
