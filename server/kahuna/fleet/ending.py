"""Endings of sessions: what an agent is told, when it may come back, and the status of its call."""

from collections.abc import Mapping

import structlog
from prometheus_client import Counter

from kahuna.domain.errors import Refusal
from kowa.fleet.v1 import fleet_pb2

log = structlog.get_logger()

ENDED = Counter("kahuna_session_endings", "Sessions and sign-ins of agents ended by Kahuna.", ["farewell"])
LONGEST_PAUSE_S = 600.0
# For each farewell the reason of its refusal, and the seconds after which the agent may come back.
_FAREWELLS: Mapping["fleet_pb2.Farewell", tuple[str, float]] = {
    fleet_pb2.FAREWELL_SHUTTING_DOWN: ("BUSY", 0.5),
    fleet_pb2.FAREWELL_SUPERSEDED: ("CONFLICT", 5),
    fleet_pb2.FAREWELL_TOKEN_SHARED: ("CONFLICT", 60),
    fleet_pb2.FAREWELL_UNAUTHENTICATED: ("UNAUTHENTICATED", 15),
    fleet_pb2.FAREWELL_PROTOCOL_ERROR: ("INVALID_ARGUMENT", 15),
    fleet_pb2.FAREWELL_UNSUPPORTED: ("INVALID_ARGUMENT", 60),
    fleet_pb2.FAREWELL_TIMED_OUT: ("CONFLICT", 1),
    fleet_pb2.FAREWELL_OVERLOADED: ("BUSY", 5),
    fleet_pb2.FAREWELL_INTERNAL: ("INTERNAL", 5),
}
_OF_STATUS: Mapping[str, "fleet_pb2.Farewell"] = {
    "INVALID_ARGUMENT": fleet_pb2.FAREWELL_PROTOCOL_ERROR,
    "UNAUTHENTICATED": fleet_pb2.FAREWELL_UNAUTHENTICATED,
    "PERMISSION_DENIED": fleet_pb2.FAREWELL_UNAUTHENTICATED,
    "NOT_FOUND": fleet_pb2.FAREWELL_UNAUTHENTICATED,  # the agent's record has been removed
    "UNAVAILABLE": fleet_pb2.FAREWELL_OVERLOADED,
}


class Ending(Refusal):
    """The end of a session, raised in its call or set by another task."""

    def __init__(
        self, farewell: "fleet_pb2.Farewell", message: str, *, retry_after_s: float | None = None, reason: str = ""
    ) -> None:
        """`retry_after_s` are the seconds after which the agent may come back, `reason` is that of the call's status.

        Both default to what the farewell usually has.
        """
        usual_reason, usual_s = _FAREWELLS[farewell]
        super().__init__(reason or usual_reason, message)
        self.farewell = farewell
        self.retry_after_s = min(usual_s if retry_after_s is None else retry_after_s, LONGEST_PAUSE_S)

    def goodbye(self) -> fleet_pb2.ConnectResponse:
        """The last message to the agent."""
        goodbye = fleet_pb2.Goodbye(farewell=self.farewell, message=self.message)
        goodbye.retry_after.FromMilliseconds(round(self.retry_after_s * 1000))
        return fleet_pb2.ConnectResponse(goodbye=goodbye)


def protocol_error(message: str) -> Ending:
    """The ending of an agent that sends what it may not."""
    return Ending(fleet_pb2.FAREWELL_PROTOCOL_ERROR, message)


def ending_of(error: Exception) -> Ending:
    """Returns the ending for any error. One that is no refusal is a bug: only the log has its details."""
    if isinstance(error, Ending):
        return error
    if isinstance(error, Refusal) and error.status in _OF_STATUS:
        return Ending(_OF_STATUS[error.status], error.message)
    log.error("session.failed", exc_info=error)
    return Ending(fleet_pb2.FAREWELL_INTERNAL, "the session failed; the server's log says why")
