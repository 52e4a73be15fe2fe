"""Why a call is refused: a closed list. A reason is never renamed or reused."""

from collections.abc import Mapping, Sequence

from kowa.errors import Violation as Violation
from kowa.formats import quoted as quoted
from kowa.formats import shortened as shortened

# reason -> the name of its gRPC status. The REST status follows from that in the gateway.
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
    """A call refused, before any side effect.

    `reason` is one of REASONS; the message names the object, what is wrong and the remedy; `details` hold the same
    for programs.
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
    """A refusal of the values of some fields."""
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return Refusal(reason, message, details=details, violations=violations)


def on_field(reason: str, field: str, description: str) -> Refusal:
    """A refusal of one field's value."""
    return on_fields(reason, [Violation(field, description)])


def invalid(field: str, description: str) -> Refusal:
    """A refusal of one field's value, which is wrong in itself."""
    return on_field("INVALID_ARGUMENT", field, description)


def not_found(kind: str, id_: str) -> Refusal:
    """The answer for what does not exist, and for what the caller may not see."""
    return Refusal(
        "NOT_FOUND",
        f"no {kind} has the id {quoted(id_)}; list them to find it",
        details={"kind": kind, "id": shortened(id_)},
    )
