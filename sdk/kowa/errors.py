"""What goes wrong, as exceptions. Every refusal of the platform is a KowaError."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kowa.v2 import operation_pb2


@dataclass(frozen=True, slots=True)
class Violation:
    """A field and what is wrong with it."""

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
        self.message = message  # names the object, what is wrong and the remedy
        self.code = code  # of gRPC: `NOT_FOUND`
        self.reason = reason  # a stable word for programs: `HAS_CHILDREN`
        self.metadata = dict(metadata or {})  # what the reason is about
        self.violations = violations
        self.operation = operation  # which the change is carried out by, if it was committed


class NotFound(KowaError):
    """There is no such thing, or none that the caller may see."""


class Invalid(KowaError):
    """The request can't be right, whatever the state of the platform."""


class Conflict(KowaError):
    """The request does not fit what is there."""


class Exhausted(KowaError):
    """A quota, an address range or the hosts are full."""


class Denied(KowaError):
    """The key is not known, or may not do this."""


class Unavailable(KowaError):
    """Kahuna can't be reached or did not answer in time; what was asked may have been done."""


class Closed(KowaError):
    """The client was closed, before the call or during it; what was asked may have been done."""


class OperationFailed(KowaError):
    """What was asked for was committed and then failed."""

    operation: "operation_pb2.Operation"


class OperationPending(KowaError):
    """What was asked for was committed and is still under way."""

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
    "CANCELLED": Unavailable,  # by a Kahuna that stops: what the caller cancels itself, nobody hears of
}


def from_status(code: str, message: str, details: bytes) -> KowaError:
    """The error that a gRPC status stands for; `details` is what came as `grpc-status-details-bin`."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]

    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    # What can't be read is not Kahuna's: the code and the message stand without it.
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
