"""What the agents report of an object's generations."""

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import DesiredObject
from kowa.runtime.notes import Notes
from kowa.runtime.outcome import report_of
from kowa.runtime.verdict import Verdict
from kowa.v2 import volume_pb2


def reported(notes: Notes, generation: int, verdict: Verdict) -> tuple[fleet_pb2.Outcome, int]:
    wanted = DesiredObject("root", generation, False, "root")
    report = report_of(notes, wanted, verdict, volume_pb2.Volume())
    return report.outcome, report.observed_generation


def test_what_was_applied_before_kahunas_database_went_back_counts_as_nothing() -> None:
    notes, waits = Notes(), Verdict(waits="the pool")
    assert reported(notes, 5, Verdict()) == (fleet_pb2.OUTCOME_APPLIED, 5)
    assert reported(notes, 6, waits) == (fleet_pb2.OUTCOME_WAITING, 5)
    assert reported(notes, 3, waits) == (fleet_pb2.OUTCOME_WAITING, 0)
