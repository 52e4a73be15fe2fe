"""Why a call is refused: a closed list. A reason is never renamed or reused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grpc import StatusCode

from kowa.formats import quoted as quoted
from kowa.formats import shortened as shortened

# reason -> gRPC status. The REST status follows from it in the gateway.
REASONS: Mapping[str, StatusCode] = {
    "UNAUTHENTICATED": StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": StatusCode.PERMISSION_DENIED,
    "NOT_FOUND": StatusCode.NOT_FOUND,
    "INVALID_ARGUMENT": StatusCode.INVALID_ARGUMENT,
    "NOT_SERVED": StatusCode.UNIMPLEMENTED,
    "NAME_TAKEN": StatusCode.ALREADY_EXISTS,
    "ADDRESS_TAKEN": StatusCode.ALREADY_EXISTS,
    "REQUEST_ID_REUSED": StatusCode.ALREADY_EXISTS,
    "ETAG_MISMATCH": StatusCode.ABORTED,
    "CONFLICT": StatusCode.ABORTED,
    "HAS_CHILDREN": StatusCode.FAILED_PRECONDITION,
    "IN_USE": StatusCode.FAILED_PRECONDITION,
    "DELETING": StatusCode.FAILED_PRECONDITION,
    "NOT_RUNNING": StatusCode.FAILED_PRECONDITION,
    "NO_HOST": StatusCode.RESOURCE_EXHAUSTED,
    "NO_ADDRESS": StatusCode.RESOURCE_EXHAUSTED,
    "REVISION_COMPACTED": StatusCode.OUT_OF_RANGE,
    "HOST_OFFLINE": StatusCode.UNAVAILABLE,
    "BUSY": StatusCode.UNAVAILABLE,
    "STORE_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "ANSWER_LOST": StatusCode.UNAVAILABLE,
    "INTERNAL": StatusCode.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One field and what is wrong with it."""

    field: str
    description: str


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
    def code(self) -> StatusCode:
        """The gRPC status."""
        return REASONS[self.reason]


def invalid(field: str, description: str) -> Refusal:
    """A refusal of one field's value."""
    return Refusal("INVALID_ARGUMENT", f"{field}: {description}", violations=[Violation(field, description)])


def not_found(kind: str, id_: str) -> Refusal:
    """The answer for what does not exist, and for what the caller may not see."""
    return Refusal(
        "NOT_FOUND",
        f"no {kind} has the id {quoted(id_)}; list them to find it",
        details={"kind": kind, "id": shortened(id_)},
    )
