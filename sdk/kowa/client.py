"""The platform as Python objects: `Client` for ordinary code, `AsyncClient` the same for asyncio.

    with Client("kahuna.example:443", key="...") as client:
        region = client.regions.create(Region(name="eu"))
        for zone in client.zones.list(filter=f'region = "{region.meta.id}"'):
            print(zone.name)

Every kind of the contract is an attribute, in the plural; `client.of(Region)` is the same, known to type checkers.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import Message

from kowa import contract, errors
from kowa.v2 import meta_pb2, operation_pb2

M = TypeVar("M", bound=Message)

CALL_LIMIT: Final = 60.0  # seconds for one answer
OPERATION_LIMIT: Final = 3600.0  # seconds for a change to come about
POLL: Final = 60.0  # seconds that one WaitOperation waits at most
MESSAGE_LIMIT: Final = 32 << 20

# gRPC retries by itself: what can't be reached is tried again after a random part of a growing pause, four times.
# Nothing is done twice, because each change carries a request id.
_RETRIES: Final = {
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
_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
    ("grpc.keepalive_time_ms", 330_000),  # gRPC servers take more than one ping in five minutes of silence for abuse
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
)
_ENDED: Final = frozenset(
    {
        operation_pb2.PHASE_DONE,
        operation_pb2.PHASE_FAILED,
        operation_pb2.PHASE_CANCELLED,
        operation_pb2.PHASE_SUPERSEDED,
    }
)
_CHANGES: Final[dict[int, Literal["put", "removed", "synced"]]] = {
    meta_pb2.CHANGE_PUT: "put",
    meta_pb2.CHANGE_REMOVED: "removed",
    meta_pb2.CHANGE_SYNCED: "synced",
}


@dataclass(frozen=True, slots=True)
class Begun(Generic[M]):
    """A change that is committed: the answer, and the operation that brings it about."""

    resource: M
    operation_id: str  # empty when nothing was to be done


@dataclass(frozen=True, slots=True)
class Event(Generic[M]):
    """One event of a watch."""

    change: Literal["put", "removed", "synced"]
    revision: int
    id: str
    resource: M | None  # what is there now, if it was put


class _Place:
    """Where Kahuna is and how it is spoken to."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        key: str | None = None,
        ca: str | Path | None = None,
        insecure: bool = False,
        reason: str = "",
    ) -> None:
        """What isn't given is taken from KOWABUNGA_ENDPOINT, KOWABUNGA_API_KEY and KOWABUNGA_CA.

        `ca` is a PEM file to trust instead of the system's authorities; `insecure` speaks without TLS; `reason` is kept
        with every change, for those who ask later. Raises ValueError when there is no endpoint.
        """
        endpoint = endpoint or os.environ.get("KOWABUNGA_ENDPOINT", "")
        if not endpoint:
            raise ValueError("no endpoint: give one, or set KOWABUNGA_ENDPOINT, such as kahuna.example:443")
        self.target = endpoint.removeprefix("https://").rstrip("/")
        ca = ca or os.environ.get("KOWABUNGA_CA") or None
        metadata: list[tuple[str, str]] = []
        if key := key or os.environ.get("KOWABUNGA_API_KEY", ""):
            metadata.append(("authorization", f"Bearer {key}"))
        if reason:
            metadata.append(("kowabunga-reason", quote(reason, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")))
        self.metadata = tuple(metadata)
        self.credentials = None if insecure else grpc.ssl_channel_credentials(Path(ca).read_bytes() if ca else None)


class _Kind(Generic[M]):
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
        """A request with an id of its own, if it can have one."""
        message = self.method(verb).request
        if "request_id" in message.fields:
            fields.setdefault("request_id", str(uuid.uuid4()))
        return contract.load().stub(message.name)(**fields)

    def update(self, resource: M, mask: Iterable[str]) -> Any:
        """Of the masked fields, or of those that are set."""
        fields: dict[str, object] = {self.kind.noun: resource}
        if mask:
            fields["update_mask"] = field_mask_pb2.FieldMask(paths=mask)
        return self.request("update", **fields)

    def event(self, response: Any) -> Event[M]:
        """What a watch's response says."""
        change = _CHANGES[response.change]
        resource = getattr(response, self.kind.noun) if change == "put" else None
        return Event(change, response.revision, response.id or (resource.meta.id if resource else ""), resource)

    def items(self, page: Any) -> Iterable[M]:
        """What is on a page."""
        items: Iterable[M] = getattr(page, self.kind.nouns)
        return items


class _Watched:
    """How far a watch has come."""

    def __init__(self, revision: int) -> None:
        # Where to go on; 0 until the whole set has been seen. A revision may be several events: only `synced` counts.
        self.revision = revision
        self._moved = False

    def seen(self, event: Event[M]) -> Event[M]:
        """Notes the event."""
        self._moved = True
        if event.change == "synced":
            self.revision = event.revision
        return event

    def resumable(self) -> bool:
        """Whether a broken stream can be taken up, and was of use since the last time."""
        moved, self._moved = self._moved, False
        return moved and self.revision > 0


def _codecs(method: contract.Method) -> dict[str, Any]:
    stub = contract.load().stub
    return {
        "request_serializer": stub(method.request.name).SerializeToString,
        "response_deserializer": stub(method.response).FromString,
    }


def _translated(error: grpc.RpcError) -> errors.KowaError:
    """What was refused, from a call of either kind."""
    call: Any = error
    trailing = dict(call.trailing_metadata() or ())
    return errors.from_status(call.code().name, call.details() or "", trailing.get("grpc-status-details-bin", b""))


def _id(resource: Any) -> str:
    return str(resource.meta.id)


def _operation_id(metadata: Any) -> str:
    return str(dict(metadata or ()).get("kowabunga-operation", ""))


def _wait_request(operation_id: str, left: float) -> Any:
    timeout = duration_pb2.Duration()
    timeout.FromMilliseconds(max(1, int(min(left, POLL) * 1000)))
    return operation_pb2.WaitOperationRequest(id=operation_id, timeout=timeout)


def _judged(operation: operation_pb2.Operation) -> operation_pb2.Operation:
    """The operation, if it is done.

    Raises OperationFailed or OperationPending otherwise.
    """
    name, said = f"{operation.method} {operation.target_name}".strip(), operation.message or "it gives no reason"
    if operation.phase == operation_pb2.PHASE_DONE:
        return operation
    if operation.phase in _ENDED:
        phase = operation_pb2.Phase.Name(operation.phase).removeprefix("PHASE_").lower()
        raise errors.OperationFailed(f"{name} {phase}: {said}", operation)
    raise errors.OperationPending(f"{name} is still under way: {said}", operation)


class Resource(Generic[M]):
    """The resources of one kind. Custom verbs of the contract are methods too: `client.instances.start(id)`."""

    def __init__(self, client: "Client", kind: contract.Kind) -> None:
        self._client, self._of = client, _Kind[M](kind)

    def get(self, id: str) -> M:  # noqa: A002 - what the contract calls it
        """One, by its id."""
        resource: M = self._begin("get", self._of.request("get", id=id)).resource
        return resource

    def list(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> Iterator[M]:  # noqa: A002
        """All that match, read a page at a time."""
        request = self._of.request("list", filter=filter, order_by=order_by, page_size=page_size)
        while True:
            page: Any = self._begin("list", request).resource
            yield from self._of.items(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def create(self, resource: M, *, limit: float = OPERATION_LIMIT) -> M:
        """Creates one and waits for it to come about."""
        return self._finish(self.begin_create(resource), limit)

    def begin_create(self, resource: M) -> Begun[M]:
        """Creates one; its operation goes on."""
        return self._begin("create", self._of.request("create", **{self._of.kind.noun: resource}))

    def update(self, resource: M, mask: Iterable[str] = (), *, limit: float = OPERATION_LIMIT) -> M:
        """Changes the fields of the mask, or those that are set, and waits for that to come about."""
        return self._finish(self.begin_update(resource, mask), limit)

    def begin_update(self, resource: M, mask: Iterable[str] = ()) -> Begun[M]:
        """Changes it; its operation goes on."""
        return self._begin("update", self._of.update(resource, mask))

    def delete(self, id: str, *, etag: str = "", limit: float = OPERATION_LIMIT) -> None:  # noqa: A002
        """Deletes one and waits until it is gone."""
        if operation := self.begin_delete(id, etag=etag).operation_id:
            self._client.operations.wait(operation, limit)

    def begin_delete(self, id: str, *, etag: str = "") -> Begun[Any]:  # noqa: A002
        """Marks one for deletion; its operation goes on."""
        return self._begin("delete", self._of.request("delete", id=id, etag=etag))

    def watch(self, filter: str = "", revision: int = 0) -> Iterator[Event[M]]:  # noqa: A002
        """The set, then its changes; or only those after a revision. `synced` says that all up to its revision is sent.

        A stream that breaks is resumed from there: what came after it comes again. Raises Invalid with the reason
        REVISION_COMPACTED when that is too long ago: start anew.
        """
        place = _Watched(revision)
        while True:
            try:
                request = self._of.request("watch", filter=filter, revision=place.revision)
                for response in self._client.stream(self._of.method("watch"), request):
                    yield place.seen(self._of.event(response))
                return
            except errors.Unavailable:
                if not place.resumable():
                    raise

    def begin(self, verb: str, id: str, **fields: object) -> Begun[M]:  # noqa: A002
        """A custom verb; its operation goes on."""
        return self._begin(verb, self._of.request(verb, id=id, **fields))

    def do(self, verb: str, id: str, *, limit: float = OPERATION_LIMIT, **fields: object) -> M:  # noqa: A002
        """A custom verb, waiting for it to come about."""
        return self._finish(self.begin(verb, id, **fields), limit)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        verb = name.removeprefix("begin_")
        self._of.method(verb)
        return partial(self.do if verb == name else self.begin, verb)

    def _begin(self, verb: str, request: Message) -> Begun[Any]:
        return self._client.call(self._of.method(verb), request)

    def _finish(self, begun: Begun[M], limit: float) -> M:
        if begun.operation_id:
            self._client.operations.wait(begun.operation_id, limit)
        if self._of.kind.converges and begun.operation_id:
            return self.get(_id(begun.resource))
        return begun.resource


class Operations(Resource[operation_pb2.Operation]):
    """What was asked for and how it goes."""

    def wait(self, id: str, limit: float = OPERATION_LIMIT) -> operation_pb2.Operation:  # noqa: A002
        """Returns the operation when it is done.

        Raises OperationFailed when it ended otherwise, OperationPending when the time is up.
        """
        deadline = monotonic() + limit
        while True:
            left = deadline - monotonic()
            method, request = self._of.method("wait"), _wait_request(id, left)
            operation = self._client.call(method, request, limit=left + CALL_LIMIT).resource
            if operation.phase in _ENDED or monotonic() >= deadline:
                return _judged(operation)


class Client(_Place):
    """A connection to Kahuna; made when first used. Each kind is an attribute: `client.instances`."""

    def of(self, message: type[M]) -> Resource[M]:
        """The resources that are such messages."""
        return Resource(self, contract.load().kinds[message.DESCRIPTOR.name])

    @cached_property
    def operations(self) -> Operations:
        """What was asked for."""
        return Operations(self, contract.load().kinds["Operation"])

    def __getattr__(self, name: str) -> Resource[Any]:
        return Resource(self, _kind(name))

    def call(self, method: contract.Method, request: Message, *, limit: float = CALL_LIMIT) -> Begun[Any]:
        """One call, as it is in the contract."""
        try:
            send = self._channel.unary_unary(method.path, **_codecs(method))
            response, call = send.with_call(request, timeout=limit, metadata=self.metadata)
        except grpc.RpcError as error:
            raise _translated(error) from None
        return Begun(response, _operation_id(call.initial_metadata()))

    def stream(self, method: contract.Method, request: Message) -> Iterator[Any]:
        """One call that answers with a stream. Closing the iterator ends it."""
        call = self._channel.unary_stream(method.path, **_codecs(method))(request, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _translated(error) from None
        finally:
            call.cancel()

    @cached_property
    def _channel(self) -> grpc.Channel:
        if self.credentials is None:
            return grpc.insecure_channel(self.target, _OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, _OPTIONS)

    def close(self) -> None:
        """Ends the connection and what runs on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncResource(Generic[M]):
    """The resources of one kind, for asyncio. The same methods as `Resource`."""

    def __init__(self, client: "AsyncClient", kind: contract.Kind) -> None:
        self._client, self._of = client, _Kind[M](kind)

    async def get(self, id: str) -> M:  # noqa: A002
        """One, by its id."""
        resource: M = (await self._begin("get", self._of.request("get", id=id))).resource
        return resource

    async def list(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> AsyncIterator[M]:  # noqa: A002
        """All that match, read a page at a time."""
        request = self._of.request("list", filter=filter, order_by=order_by, page_size=page_size)
        while True:
            page: Any = (await self._begin("list", request)).resource
            for item in self._of.items(page):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def create(self, resource: M, *, limit: float = OPERATION_LIMIT) -> M:
        """Creates one and waits for it to come about."""
        return await self._finish(await self.begin_create(resource), limit)

    async def begin_create(self, resource: M) -> Begun[M]:
        """Creates one; its operation goes on."""
        return await self._begin("create", self._of.request("create", **{self._of.kind.noun: resource}))

    async def update(self, resource: M, mask: Iterable[str] = (), *, limit: float = OPERATION_LIMIT) -> M:
        """Changes the fields of the mask, or those that are set, and waits for that to come about."""
        return await self._finish(await self.begin_update(resource, mask), limit)

    async def begin_update(self, resource: M, mask: Iterable[str] = ()) -> Begun[M]:
        """Changes it; its operation goes on."""
        return await self._begin("update", self._of.update(resource, mask))

    async def delete(self, id: str, *, etag: str = "", limit: float = OPERATION_LIMIT) -> None:  # noqa: A002
        """Deletes one and waits until it is gone."""
        if operation := (await self.begin_delete(id, etag=etag)).operation_id:
            await self._client.operations.wait(operation, limit)

    async def begin_delete(self, id: str, *, etag: str = "") -> Begun[Any]:  # noqa: A002
        """Marks one for deletion; its operation goes on."""
        return await self._begin("delete", self._of.request("delete", id=id, etag=etag))

    async def watch(self, filter: str = "", revision: int = 0) -> AsyncIterator[Event[M]]:  # noqa: A002
        """The set, then its changes; or only those after a revision. `synced` says that all up to its revision is sent.

        A stream that breaks is resumed from there: what came after it comes again. Raises Invalid with the reason
        REVISION_COMPACTED when that is too long ago: start anew.
        """
        place = _Watched(revision)
        while True:
            try:
                request = self._of.request("watch", filter=filter, revision=place.revision)
                async for response in self._client.stream(self._of.method("watch"), request):
                    yield place.seen(self._of.event(response))
                return
            except errors.Unavailable:
                if not place.resumable():
                    raise

    async def begin(self, verb: str, id: str, **fields: object) -> Begun[M]:  # noqa: A002
        """A custom verb; its operation goes on."""
        return await self._begin(verb, self._of.request(verb, id=id, **fields))

    async def do(self, verb: str, id: str, *, limit: float = OPERATION_LIMIT, **fields: object) -> M:  # noqa: A002
        """A custom verb, waiting for it to come about."""
        return await self._finish(await self.begin(verb, id, **fields), limit)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        verb = name.removeprefix("begin_")
        self._of.method(verb)
        return partial(self.do if verb == name else self.begin, verb)

    async def _begin(self, verb: str, request: Message) -> Begun[Any]:
        return await self._client.call(self._of.method(verb), request)

    async def _finish(self, begun: Begun[M], limit: float) -> M:
        if begun.operation_id:
            await self._client.operations.wait(begun.operation_id, limit)
        if self._of.kind.converges and begun.operation_id:
            return await self.get(_id(begun.resource))
        return begun.resource


class AsyncOperations(AsyncResource[operation_pb2.Operation]):
    """What was asked for and how it goes, for asyncio."""

    async def wait(self, id: str, limit: float = OPERATION_LIMIT) -> operation_pb2.Operation:  # noqa: A002
        """As `Operations.wait`."""
        deadline = monotonic() + limit
        while True:
            left = deadline - monotonic()
            method, request = self._of.method("wait"), _wait_request(id, left)
            operation = (await self._client.call(method, request, limit=left + CALL_LIMIT)).resource
            if operation.phase in _ENDED or monotonic() >= deadline:
                return _judged(operation)


class AsyncClient(_Place):
    """A connection to Kahuna for asyncio; made when first used. Each kind is an attribute: `client.instances`."""

    def of(self, message: type[M]) -> AsyncResource[M]:
        """The resources that are such messages."""
        return AsyncResource(self, contract.load().kinds[message.DESCRIPTOR.name])

    @cached_property
    def operations(self) -> AsyncOperations:
        """What was asked for."""
        return AsyncOperations(self, contract.load().kinds["Operation"])

    def __getattr__(self, name: str) -> AsyncResource[Any]:
        return AsyncResource(self, _kind(name))

    async def call(self, method: contract.Method, request: Message, *, limit: float = CALL_LIMIT) -> Begun[Any]:
        """One call, as it is in the contract."""
        call = self._channel.unary_unary(method.path, **_codecs(method))(
            request, timeout=limit, metadata=self._metadata
        )
        try:
            return Begun(await call, _operation_id(await call.initial_metadata()))
        except grpc.RpcError as error:
            raise _translated(error) from None

    async def stream(self, method: contract.Method, request: Message) -> AsyncIterator[Any]:
        """One call that answers with a stream. Closing the iterator ends it."""
        call = self._channel.unary_stream(method.path, **_codecs(method))(request, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise _translated(error) from None
        finally:
            call.cancel()

    @cached_property
    def _metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*self.metadata)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, _OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, _OPTIONS)

    async def close(self) -> None:
        """Ends the connection and what runs on it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


def _kind(nouns: str) -> contract.Kind:
    """The kind whose plural is an attribute's name."""
    for kind in contract.load().kinds.values():
        if kind.nouns == nouns:
            return kind
    raise AttributeError(f"there are no {nouns} in {contract.PACKAGE}")
