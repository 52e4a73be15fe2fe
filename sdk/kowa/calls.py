"""What both clients share: where the platform is, how a call is written, what an answer means."""

import json
import os
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from time import monotonic
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import Message

from kowa import contract, errors
from kowa.backoff import Backoff
from kowa.v2 import meta_pb2, operation_pb2

M = TypeVar("M", bound=Message)

CALL_LIMIT: Final = 60.0  # seconds for one answer, unless the client is told otherwise
OPERATION_LIMIT: Final = 3600.0  # seconds for a change to be carried out, unless the client or the call says otherwise
POLL: Final = 60.0  # seconds that one WaitOperation waits at most
PAUSES_S: Final = 0.2, 5.0  # before what waits for Kahuna to come back tries again: the first, the longest
MESSAGE_LIMIT: Final = 32 << 20
METADATA_LIMIT: Final = 1 << 20

# gRPC retries by itself: what can't be reached is tried again after a random part of a growing pause, four times.
# Nothing is done twice, because each change carries a request id.
RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "3s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
OPTIONS: Final = (
    ("grpc.service_config", json.dumps(RETRIES)),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
    ("grpc.keepalive_time_ms", 330_000),  # gRPC servers take more than one ping in five minutes of silence for abuse
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # A refusal says what is wrong with each field and why each host won't do, all in metadata: gRPC takes 8 KiB of it.
    ("grpc.max_metadata_size", METADATA_LIMIT),
)
ENDED: Final = frozenset(
    {
        operation_pb2.PHASE_DONE,
        operation_pb2.PHASE_FAILED,
        operation_pb2.PHASE_CANCELLED,
        operation_pb2.PHASE_SUPERSEDED,
    }
)
CHANGES: Final[dict[int, Literal["put", "removed", "synced"]]] = {
    meta_pb2.CHANGE_PUT: "put",
    meta_pb2.CHANGE_REMOVED: "removed",
    meta_pb2.CHANGE_SYNCED: "synced",
}


@dataclass(frozen=True, slots=True)
class Begun(Generic[M]):
    """A change that is committed: the answer, and the operation that carries it out."""

    resource: M
    operation_id: str  # empty when nothing was to be done


@dataclass(frozen=True, slots=True)
class Event(Generic[M]):
    """One event of a watch."""

    change: Literal["put", "removed", "synced"]
    revision: int
    id: str
    resource: M | None  # what is there now, if it was put


class ConnectionSettings:
    """Where Kahuna is and how it is spoken to."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        key: str | None = None,
        ca: str | Path | None = None,
        insecure: bool = False,
        reason: str = "",
        call_limit: float = CALL_LIMIT,
        operation_limit: float = OPERATION_LIMIT,
    ) -> None:
        """What isn't given is taken from KOWABUNGA_ENDPOINT, KOWABUNGA_API_KEY and KOWABUNGA_CA.

        `ca` is a PEM file to trust instead of the system's authorities; `insecure` speaks without TLS; `reason` is kept
        with every change, for those who ask later. An answer may take `call_limit` seconds, a change `operation_limit`
        to come about. Raises ValueError when there is no endpoint, or when it or the key can't be one.
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


def _target(endpoint: str) -> str:
    """A host and a port, or what gRPC takes for them; https:// before it says nothing new."""
    endpoint = endpoint.strip()
    if not endpoint:
        raise ValueError("no endpoint: give one, or set KOWABUNGA_ENDPOINT, such as kahuna.example:443")
    place = endpoint.removeprefix("https://").rstrip("/")
    is_url = "://" in place and ":///" not in place  # dns:///host:port is gRPC's
    if is_url or (place != endpoint and "/" in place):
        raise ValueError(f"{endpoint} is no endpoint; write it as HOST:PORT, such as kahuna.example:443")
    return place


def _key(key: str) -> str:
    """The key, without what a file or a shell may have put around it."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("KOWABUNGA_API_KEY holds signs that no key has; set it to the key alone")
    return key


class Requests(Generic[M]):
    """What requests of one kind look like; nothing is sent here."""

    def __init__(self, kind: contract.Kind) -> None:
        self.kind = kind

    def method(self, verb: str) -> contract.Method:
        """Raises AttributeError when the kind has no such verb."""
        try:
            return self.kind.service.methods[verb.replace("_", "-")]
        except KeyError:
            raise AttributeError(f"{self.kind.plural} have no method {verb}") from None

    def request(self, verb: str, **fields: object) -> Any:
        """A request with the id it is given or one of its own, if it can have one."""
        message = self.method(verb).request
        if not fields.get("id"):
            fields.pop("id", None)  # a verb of the kind has none
        if "request_id" in message.fields:
            fields["request_id"] = fields.get("request_id") or str(uuid.uuid4())
        return contract.load().stub(message.name)(**fields)

    def plan(self, verb: str, **fields: object) -> Any:
        """A request to be tried and not carried out. Raises AttributeError when the verb knows no such thing."""
        if not self.method(verb).mutates:
            raise AttributeError(f"{verb} of {self.kind.plural} has no plan")
        return self.request(verb, validate_only=True, **fields)

    def create(self, resource: M) -> dict[str, object]:
        """What a creation is asked with."""
        return {self.kind.noun: resource}

    def update(self, resource: Any, mask: Iterable[str]) -> dict[str, object]:
        """What a change is asked with. Without a mask, what was read is taken whole; of any other what is set.

        An etag says that it was read. Fields that can't be changed are named, too: who edited one shall hear of it.
        """
        paths = list(mask) or ([field.name for field in self.kind.writable] if resource.meta.etag else [])
        return {self.kind.noun: resource, "update_mask": field_mask_pb2.FieldMask(paths=paths)}

    def event(self, response: Any) -> Event[M]:
        """What a watch's response says."""
        change = CHANGES[response.change]
        resource = getattr(response, self.kind.noun) if change == "put" else None
        return Event(change, response.revision, response.id or (resource.meta.id if resource else ""), resource)

    def is_one(self, answer: Message) -> bool:
        """Whether an answer is a resource of the kind."""
        return answer.DESCRIPTOR.full_name == self.kind.message.name

    def items(self, page: Any) -> Iterable[M]:
        """The resources on a page of a list."""
        items: Iterable[M] = getattr(page, self.kind.nouns)
        return items


class Wait:
    """How long a wait for an operation goes on, whether Kahuna answers or not."""

    def __init__(self, limit: float) -> None:
        self._deadline = monotonic() + limit
        self._backoff = Backoff(*PAUSES_S)

    @property
    def left(self) -> float:
        """Seconds left; negative when the time is up."""
        return self._deadline - monotonic()

    def request(self, operation_id: str) -> operation_pb2.WaitOperationRequest:
        """Asks for as much of it as one call waits."""
        timeout = duration_pb2.Duration()
        timeout.FromMilliseconds(max(1, int(min(self.left, POLL) * 1000)))
        return operation_pb2.WaitOperationRequest(id=operation_id, timeout=timeout)

    def call_limit(self, call_limit: float) -> float:
        """The seconds that call may take, for a client whose answers may take so long."""
        return max(min(self.left, POLL), 0.0) + call_limit

    def ended(self, operation: operation_pb2.Operation) -> bool:
        """Whether the operation has ended, or the time is up."""
        self._backoff.reset()
        return operation.phase in ENDED or self.left <= 0

    def pause(self) -> float:
        """The seconds until Kahuna, which did not answer, is asked again; none when the time is up."""
        return min(self._backoff.next_pause(), max(self.left, 0.0))


class WatchPosition:
    """Where to resume a watch that breaks off."""

    def __init__(self, revision: int) -> None:
        # Where to go on, once it is known. A revision may be several events: only `synced` counts.
        self.revision = revision
        self._known = revision > 0
        self._has_begun = False
        self._backoff = Backoff(*PAUSES_S)

    def seen(self, event: Event[M]) -> Event[M]:
        """Takes note of an event and returns it."""
        self._has_begun = True
        self._backoff.reset()
        if event.change == "synced":
            self.revision, self._known = event.revision, True
        return event

    def pause(self) -> float:
        """The seconds until a broken stream is taken up; none when it never began or has no place to go on from."""
        return self._backoff.next_pause() if self._has_begun and self._known else 0.0


def codecs(method: contract.Method) -> dict[str, Any]:
    stub = contract.load().stub
    return {
        "request_serializer": stub(method.request.name).SerializeToString,
        "response_deserializer": stub(method.response).FromString,
    }


def kowa_error(error: grpc.RpcError) -> errors.KowaError:
    """The KowaError for a failed call, of grpc or grpc.aio."""
    call: Any = error
    trailing = dict(call.trailing_metadata() or ())
    return errors.from_status(call.code().name, call.details() or "", trailing.get("grpc-status-details-bin", b""))


def id_of(resource: Any) -> str:
    return str(resource.meta.id)


def operation_id(metadata: Any) -> str:
    return str(dict(metadata or ()).get("kowabunga-operation", ""))


def raise_unless_done(operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """The operation, if it is done.

    Raises OperationFailed or OperationPending otherwise.
    """
    name, said = f"{operation.method} {operation.target_name}".strip(), operation.message or "it gives no reason"
    if operation.phase == operation_pb2.PHASE_DONE:
        return operation
    if operation.phase in ENDED:
        phase = operation_pb2.Phase.Name(operation.phase).removeprefix("PHASE_").lower()
        ended = said if said.startswith(phase) else f"{phase}: {said}"
        raise errors.OperationFailed(f"{name} {ended}", operation)
    raise errors.OperationPending(f"{name} is still under way: {said}", operation)


def kind_of(nouns: str) -> contract.Kind:
    """The kind whose plural is an attribute's name. Raises AttributeError with the name that may have been meant."""
    kinds = {kind.nouns: kind for kind in contract.load().kinds.values()}
    if nouns in kinds:
        return kinds[nouns]
    meant = "".join(f"; did you mean {name}?" for name in get_close_matches(nouns, kinds, 1))
    raise AttributeError(f"there are no {nouns} in {', '.join(contract.PACKAGES)}{meant}")
