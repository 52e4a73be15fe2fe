"""The state of a resource and the phase of an operation, from generations, deletion mark and failure."""

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
class Lifecycle:
    """What decides the state of a resource: generations, the deletion mark, and whether its agent gave it up."""

    generation: int
    observed: int
    marked: bool
    failed: bool
    converges: bool


def state(lifecycle: Lifecycle) -> meta_pb2.State:
    """The state that clients see."""
    if lifecycle.marked:
        return meta_pb2.STATE_DELETING
    if not lifecycle.converges:
        return meta_pb2.STATE_READY
    if lifecycle.failed:
        return meta_pb2.STATE_ERROR
    return meta_pb2.STATE_READY if lifecycle.observed >= lifecycle.generation else meta_pb2.STATE_PENDING


def phase(target_generation: int, lifecycle: Lifecycle) -> operation_pb2.Phase:
    """The phase of an open operation on a resource; a deletion is done only when the row is removed."""
    if lifecycle.marked:
        return operation_pb2.PHASE_RUNNING
    if not lifecycle.converges:
        return operation_pb2.PHASE_DONE
    if lifecycle.observed < target_generation:
        return operation_pb2.PHASE_RUNNING
    return operation_pb2.PHASE_FAILED if lifecycle.failed else operation_pb2.PHASE_DONE
