"""The state of a resource and the phase of an operation, derived from generations, deletion mark and reports."""

from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import meta_pb2, operation_pb2

# Seconds, by method, after which an unfinished operation is overdue.
WORK_TIMEOUTS_S = {
    "CreateTemplate": 6 * 3600 + 600,  # the agent gives up an import after six hours
    "RebootInstance": 120,  # the agent starts it within a minute, or never
    "ResetInstance": 120,
}
DEFAULT_WORK_TIMEOUT_S = 300
OPEN_PHASES = frozenset({operation_pb2.PHASE_RUNNING, operation_pb2.PHASE_WAITING})
_FINAL = frozenset({fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED})


def state(head: meta_pb2.Meta, *, converges: bool) -> meta_pb2.State:
    """The state that clients see. As stored, `head.state` is what `state_to_store` returned for the last report."""
    if head.HasField("delete_time"):
        return meta_pb2.STATE_DELETING
    if not converges:
        return meta_pb2.STATE_READY
    if head.observed_generation < head.generation or head.state == meta_pb2.STATE_PENDING:
        return meta_pb2.STATE_PENDING
    return meta_pb2.STATE_ERROR if head.state == meta_pb2.STATE_ERROR else meta_pb2.STATE_READY


def state_to_store(
    head: meta_pb2.Meta, outcome: fleet_pb2.Outcome, generation: int, *, as_wanted: bool
) -> meta_pb2.State:
    """The state to store after a report: ERROR, PENDING, or none if its current generation is applied and as wanted.

    `head` is as it was before the report, with the state that clients saw; `generation` is the reported one.
    """
    before = head.state if head.state in (meta_pb2.STATE_ERROR, meta_pb2.STATE_PENDING) else meta_pb2.STATE_UNSPECIFIED
    if outcome in _FINAL and generation < head.generation:
        return before  # its end at an older generation says nothing about the current one
    if outcome == fleet_pb2.OUTCOME_APPLIED:
        return meta_pb2.STATE_UNSPECIFIED if as_wanted else meta_pb2.STATE_PENDING
    # A failed resource that is retried at the same generation, as after a restart, stays in ERROR until it succeeds.
    failed = outcome == fleet_pb2.OUTCOME_FAILED or before == meta_pb2.STATE_ERROR
    return meta_pb2.STATE_ERROR if failed else meta_pb2.STATE_PENDING


def observed_generation(head: meta_pb2.Meta, outcome: fleet_pb2.Outcome, generation: int) -> int:
    """The observed generation after a report. It never goes back, and only an end moves it."""
    ended = min(generation, head.generation) if outcome in _FINAL else 0
    return max(head.observed_generation, ended)


def has_fallen_behind(head: meta_pb2.Meta) -> bool:
    """Whether the current generation was given up, or was applied and the resource is as wanted no longer."""
    return head.state in (meta_pb2.STATE_ERROR, meta_pb2.STATE_PENDING) and head.observed_generation >= head.generation


def phase(target_generation: int, head: meta_pb2.Meta) -> operation_pb2.Phase:
    """The phase of an open operation on a resource. A deletion stays RUNNING until the row is removed."""
    if head.state == meta_pb2.STATE_READY:
        return operation_pb2.PHASE_DONE
    if head.state == meta_pb2.STATE_ERROR and head.observed_generation >= target_generation:
        return operation_pb2.PHASE_FAILED
    if head.state == meta_pb2.STATE_PENDING and target_generation <= head.observed_generation < head.generation:
        return operation_pb2.PHASE_DONE
    return operation_pb2.PHASE_RUNNING
