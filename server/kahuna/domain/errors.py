"""Refusals of calls. Their reasons are a closed list: none is ever renamed or reused."""

from collections.abc import Mapping, Sequence

from kowa.errors import Violation as Violation
from kowa.formats import quoted as quoted
from kowa.formats import shortened as shortened

# Reason -> the name of its gRPC status, from which the gateway derives the REST status.
REASONS: Mapping[str, str] = {
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
    "NOT_SERVED": "UNIMPLEMENTED",
    "NAME_TAKEN": "ALREADY_EXISTS",
    "ADDRESS_TAKEN": "ALREADY_EXISTS",
    "REQUEST_ID_REUSED": "ALREADY_EXISTS",
    "ETAG_MISMATCH": "ABORTED",
    "CONFLICT": "ABORTED",
    "HAS_CHILDREN": "FAILED_PRECONDITION",
    "IN_USE": "FAILED_PRECONDITION",
    "DELETING": "FAILED_PRECONDITION",
    "NOT_RUNNING": "FAILED_PRECONDITION",
    "NO_HOST": "RESOURCE_EXHAUSTED",
    "NO_ADDRESS": "RESOURCE_EXHAUSTED",
    "NO_SPACE": "RESOURCE_EXHAUSTED",
    "REVISION_COMPACTED": "OUT_OF_RANGE",
    "CONSOLE_GAP": "OUT_OF_RANGE",
    "HOST_OFFLINE": "UNAVAILABLE",
    "BUSY": "UNAVAILABLE",
    "STORE_UNAVAILABLE": "UNAVAILABLE",
    "ANSWER_LOST": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
}


class Refusal(Exception):
    """The refusal of a call, raised before any side effect.

    `reason` is one of REASONS; the message names the object, the fault and the remedy; `details` hold the same for
    programs.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        details: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        assert reason in REASONS, reason
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.violations = tuple(violations)

    @property
    def status(self) -> str:
        """The name of its gRPC status: `NOT_FOUND`."""
        return REASONS[self.reason]


def on_fields(reason: str, violations: Sequence[Violation], details: Mapping[str, str] | None = None) -> Refusal:
    """A refusal for one or more fields, with one message for all of them."""
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return Refusal(reason, message, details=details, violations=violations)


def on_field(reason: str, field: str, description: str) -> Refusal:
    """A refusal for one field."""
    return on_fields(reason, [Violation(field, description)])


def invalid(field: str, description: str) -> Refusal:
    """A refusal with INVALID_ARGUMENT: one field's value is wrong."""
    return on_field("INVALID_ARGUMENT", field, description)


def not_found(kind: str, id_: str) -> Refusal:
    """The refusal for a resource that does not exist, and for one that the caller may not see."""
    return Refusal(
        "NOT_FOUND",
        f"no {kind} has the id {quoted(id_)}; list them to find it",
        details={"kind": kind, "id": shortened(id_)},
    )
