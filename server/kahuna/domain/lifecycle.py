"""Where a resource stands, and how an operation ends."""

from dataclasses import dataclass

from kowa.v2 import meta_pb2, operation_pb2

# How long work may take, by its method, until its operation is overdue.
WORK_LIMITS_S = {
    "CreateTemplate": 6 * 3600 + 600,  # the agent gives up an import after six hours
    "RebootInstance": 120,  # it is begun within a minute, or not at all
    "ResetInstance": 120,
}
DEFAULT_WORK_LIMIT_S = 300
OPEN = frozenset({operation_pb2.PHASE_RUNNING, operation_pb2.PHASE_WAITING})


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides the state of a resource: generations, the deletion mark, and whether its agent gave it up."""

    generation: int
    observed: int
    marked: bool
    failed: bool
    converges: bool


def state(standing: Standing) -> meta_pb2.State:
    """The state shown."""
    if standing.marked:
        return meta_pb2.STATE_DELETING
    if not standing.converges:
        return meta_pb2.STATE_READY
    if standing.failed:
        return meta_pb2.STATE_ERROR
    return meta_pb2.STATE_READY if standing.observed >= standing.generation else meta_pb2.STATE_PENDING


def phase(target_generation: int, standing: Standing) -> operation_pb2.Phase:
    """Where an open operation on a resource stands now; a deletion ends only with the row."""
    if standing.marked:
        return operation_pb2.PHASE_RUNNING
    if not standing.converges:
        return operation_pb2.PHASE_DONE
    if standing.observed < target_generation:
        return operation_pb2.PHASE_RUNNING
    return operation_pb2.PHASE_FAILED if standing.failed else operation_pb2.PHASE_DONE
