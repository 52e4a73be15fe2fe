"""The state of a resource and the phase of an operation, derived from generations, deletion mark and failure."""

from kowa.v2 import meta_pb2, operation_pb2

# Seconds, by method, after which an unfinished operation is overdue.
WORK_TIMEOUTS_S = {
    "CreateTemplate": 6 * 3600 + 600,  # the agent gives up an import after six hours
    "RebootInstance": 120,  # the agent starts it within a minute, or never
    "ResetInstance": 120,
}
DEFAULT_WORK_TIMEOUT_S = 300
OPEN_PHASES = frozenset({operation_pb2.PHASE_RUNNING, operation_pb2.PHASE_WAITING})


def state(head: meta_pb2.Meta, *, converges: bool) -> meta_pb2.State:
    """The state that clients see. As stored, `head.state` only tells whether its agent has given up (ERROR)."""
    if head.HasField("delete_time"):
        return meta_pb2.STATE_DELETING
    if not converges:
        return meta_pb2.STATE_READY
    if head.state == meta_pb2.STATE_ERROR:
        return meta_pb2.STATE_ERROR
    return meta_pb2.STATE_READY if head.observed_generation >= head.generation else meta_pb2.STATE_PENDING


def phase(target_generation: int, head: meta_pb2.Meta) -> operation_pb2.Phase:
    """The phase of an open operation on a resource. A deletion stays RUNNING until the row is removed."""
    if head.state == meta_pb2.STATE_READY:
        return operation_pb2.PHASE_DONE
    if head.state == meta_pb2.STATE_DELETING or head.observed_generation < target_generation:
        return operation_pb2.PHASE_RUNNING
    return operation_pb2.PHASE_FAILED if head.state == meta_pb2.STATE_ERROR else operation_pb2.PHASE_DONE
