"""The code that both clients share: the connection, requests, and what responses mean."""

import asyncio
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.message import Message

from kowa import contract, errors
from kowa.v2 import meta_pb2, operation_pb2
from kowa.v2.operation_pb2 import PHASE_CANCELLED, PHASE_DONE, PHASE_FAILED, PHASE_SUPERSEDED

M = TypeVar("M", bound=Message)

CALL_TIMEOUT_S: Final = 60.0  # the default for one call
OPERATION_TIMEOUT_S: Final = 3600.0  # the default for the operation of a change
POLL_S: Final = 60.0  # the longest that one WaitOperation waits
PAUSES_S: Final = 0.2, 5.0  # between attempts while Kahuna is unreachable: the first, the longest

# gRPC itself retries a call that does not reach Kahuna, four times, after a random part of a growing pause.
# Nothing is done twice, because each change has a request id.
RETRIES: Final = """{"methodConfig": [{"name": [{}], "retryPolicy": {
    "maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "3s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
}}]}"""
OPTIONS: Final = (
    ("grpc.service_config", RETRIES),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
    ("grpc.keepalive_time_ms", 330_000),  # gRPC servers count more than one ping in five silent minutes as abuse
    ("grpc.max_receive_message_length", 32 << 20),
    # An error lists each wrong field and each unsuitable host in its metadata; gRPC's default limit for that is 8 KiB.
    ("grpc.max_metadata_size", 1 << 20),
)
ENDED: Final = frozenset((PHASE_DONE, PHASE_FAILED, PHASE_CANCELLED, PHASE_SUPERSEDED))
CHANGES: Final[dict[int, Literal["put", "removed", "synced"]]] = {
    meta_pb2.CHANGE_PUT: "put",
    meta_pb2.CHANGE_REMOVED: "removed",
    meta_pb2.CHANGE_SYNCED: "synced",
}


@dataclass(frozen=True, slots=True)
class Answer(Generic[M]):
    """The response to a call. A change is committed by then, and an operation carries it out."""

    resource: M
    operation_id: str  # empty when nothing is left to be carried out


@dataclass(frozen=True, slots=True)
class Event(Generic[M]):
    """One event of a watch."""

    change: Literal["put", "removed", "synced"]
    revision: int
    id: str
    resource: M | None  # as it is now, if the change is `put`


class Connection:
    """Kahuna's address, the credentials and the time limits: the common part of both clients."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        key: str | None = None,
        ca: str | Path | None = None,
        insecure: bool = False,
        reason: str = "",
        call_limit: float = CALL_TIMEOUT_S,
        operation_limit: float = OPERATION_TIMEOUT_S,
    ) -> None:
        """The defaults are taken from KOWABUNGA_ENDPOINT, KOWABUNGA_API_KEY and KOWABUNGA_CA.

        `ca` is a PEM file to trust instead of the system's authorities; `insecure` turns TLS off; `reason` is stored
        with every change. A call may take `call_limit` seconds, the operation of a change `operation_limit`.
        Raises ValueError when there is no endpoint, or when the endpoint or the key is malformed.
        """
        self.call_limit, self.operation_limit = call_limit, operation_limit
        self._closed = threading.Event()
        self.target = _target(endpoint or os.environ.get("KOWABUNGA_ENDPOINT", ""))
        ca = ca or os.environ.get("KOWABUNGA_CA") or None
        metadata: list[tuple[str, str]] = []
        if key := _key(key or os.environ.get("KOWABUNGA_API_KEY", "")):
            metadata.append(("authorization", f"Bearer {key}"))
        if reason:
            metadata.append(("kowabunga-reason", quote(reason, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")))
        self.metadata = tuple(metadata)
        self.credentials = None if insecure else grpc.ssl_channel_credentials(Path(ca).read_bytes() if ca else None)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Converts errors of gRPC. On a closed channel gRPC raises ValueError or UsageError, or cancels the task."""
        try:
            yield
        except (grpc.RpcError, grpc.aio.UsageError, ValueError, asyncio.CancelledError) as error:
            task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
            if self._closed.is_set() and not (task and task.cancelling()):
                closed = "the client is closed; make another"
                raise errors.Closed(closed, code="CANCELLED", reason="CLIENT_CLOSED") from None
            if isinstance(error, grpc.RpcError):
                call: Any = error
                details = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
                raise errors.from_status(call.code().name, call.details() or "", details) from None
            raise


def _target(endpoint: str) -> str:
    """The endpoint as gRPC takes it, HOST:PORT or a URI of gRPC's; https:// before it is dropped."""
    endpoint = endpoint.strip()
    if not endpoint:
        raise ValueError("no endpoint: give one, or set KOWABUNGA_ENDPOINT, such as kahuna.example:443")
    address = endpoint.removeprefix("https://").rstrip("/")
    is_url = "://" in address and ":///" not in address  # dns:///host:port is gRPC's
    if is_url or (address != endpoint and "/" in address):
        raise ValueError(f"{endpoint} is not an endpoint; write it as HOST:PORT, such as kahuna.example:443")
    return address


def _key(key: str) -> str:
    """The key, without the blanks that a file or a shell may have added."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("KOWABUNGA_API_KEY holds characters that no key has; set it to the key alone")
    return key


def prepare(method: contract.Method, **fields: object) -> Any:
    """Builds a request. If its message has a request id, it gets the given one or a new one."""
    message = method.request
    if not fields.get("id"):
        fields.pop("id", None)  # a verb of the whole kind has no id
    if "request_id" in message.fields:
        fields["request_id"] = fields.get("request_id") or str(uuid.uuid4())
    return contract.load().stub(message.name)(**fields)


def to_event(kind: contract.Kind, response: Any) -> Event[Any]:
    """Converts the response of a watch."""
    change = CHANGES[response.change]
    resource = getattr(response, kind.noun) if change == "put" else None
    return Event(change, response.revision, response.id or (resource.meta.id if resource else ""), resource)


def codecs(method: contract.Method) -> dict[str, Any]:
    stub = contract.load().stub
    return {
        "request_serializer": stub(method.request.name).SerializeToString,
        "response_deserializer": stub(method.response).FromString,
    }


def operation_id(metadata: Any) -> str:
    return str(dict(metadata or ()).get("kowabunga-operation", ""))


def raise_unless_done(operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """Returns the operation if it is done. Raises OperationFailed or OperationPending otherwise."""
    name, message = f"{operation.method} {operation.target_name}".strip(), operation.message or "it gives no reason"
    if operation.phase == PHASE_DONE:
        return operation
    if operation.phase in ENDED:
        phase = operation_pb2.Phase.Name(operation.phase).removeprefix("PHASE_").lower()
        ended = message if message.startswith(phase) else f"{phase}: {message}"
        raise errors.OperationFailed(f"{name} {ended}", code="ABORTED", reason="OPERATION_FAILED", operation=operation)
    pending = f"{name} is still under way: {message}"
    raise errors.OperationPending(pending, code="DEADLINE_EXCEEDED", reason="OPERATION_PENDING", operation=operation)


def kind_of(nouns: str) -> contract.Kind:
    """The kind with this plural as an attribute's name. Raises AttributeError that suggests the closest name."""
    kinds = {kind.nouns: kind for kind in contract.load().kinds.values()}
    if nouns in kinds:
        return kinds[nouns]
    meant = "".join(f"; did you mean {name}?" for name in get_close_matches(nouns, kinds, 1))
    raise AttributeError(f"there are no {nouns} in {', '.join(contract.PACKAGES)}{meant}")
