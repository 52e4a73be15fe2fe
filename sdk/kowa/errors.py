"""Exceptions. Every refusal of the platform is a KowaError."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kowa.v2 import operation_pb2


@dataclass(frozen=True, slots=True)
class Violation:
    """A field and its problem."""

    field: str
    description: str


class KowaError(Exception):
    """A call that was refused or failed."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        operation: "operation_pb2.Operation | None" = None,
    ) -> None:
        super().__init__(message)
        self.message = message  # names the object, the problem and the remedy
        self.code = code  # of gRPC: `NOT_FOUND`
        self.reason = reason  # stable, for programs: `HAS_CHILDREN`
        self.metadata = dict(metadata or {})  # details of the reason, for programs
        self.violations = violations
        self.operation = operation  # the operation of the change, if it was committed


class NotFound(KowaError):
    """The resource does not exist, or the caller may not see it."""


class Invalid(KowaError):
    """The request is wrong in any state of the platform."""


class Conflict(KowaError):
    """The request conflicts with the current state."""


class Exhausted(KowaError):
    """A quota, an address range or the hosts are full."""


class Denied(KowaError):
    """The key is unknown, or not allowed to do this."""


class Unavailable(KowaError):
    """Kahuna can't be reached or did not answer in time; the request may have been carried out."""


class Closed(KowaError):
    """The client was closed, before the call or during it; the request may have been carried out."""


class OperationFailed(KowaError):
    """The change was committed, and its operation failed."""

    operation: "operation_pb2.Operation"


class OperationPending(KowaError):
    """The change was committed, and its operation is still running."""

    operation: "operation_pb2.Operation"


CLASSES: Final[Mapping[str, type[KowaError]]] = {
    "NOT_FOUND": NotFound,
    "INVALID_ARGUMENT": Invalid,
    "OUT_OF_RANGE": Invalid,
    "UNIMPLEMENTED": Invalid,
    "ALREADY_EXISTS": Conflict,
    "FAILED_PRECONDITION": Conflict,
    "ABORTED": Conflict,
    "RESOURCE_EXHAUSTED": Exhausted,
    "UNAUTHENTICATED": Denied,
    "PERMISSION_DENIED": Denied,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "CANCELLED": Unavailable,  # by a Kahuna that stops; a caller's own cancellation does not get here
}


def from_status(code: str, message: str, details: bytes) -> KowaError:
    """Converts a gRPC status; `details` is the value of `grpc-status-details-bin`."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]

    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    # Undecodable details are not from Kahuna: the code and the message are used without them.
    with suppress(DecodeError):
        for detail in status_pb2.Status.FromString(details).details:
            detail.Unpack(info)
            detail.Unpack(bad)
    return CLASSES.get(code, KowaError)(
        message,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=tuple(Violation(each.field, each.description) for each in bad.field_violations),
    )
