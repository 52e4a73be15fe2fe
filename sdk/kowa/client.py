"""The platform as Python objects: `Client` for ordinary code, `AsyncClient` the same for asyncio.

    with Client("kahuna.example:443", key="...") as client:
        region = client.regions.create(Region(name="eu"))
        for zone in client.zones.list(filter=f'region = "{region.meta.id}"'):
            print(zone.name)

Every kind of the contract is an attribute, in the plural; `client.of(Region)` is the same, known to type checkers.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from kowa import contract, errors
from kowa.calls import (
    CALL_LIMIT,
    ENDED,
    OPERATION_LIMIT,
    OPTIONS,
    Begun,
    Event,
    M,
    Place,
    Requests,
    Watched,
    codecs,
    id_of,
    judged,
    kind_of,
    operation_id,
    translated,
    wait_request,
)
from kowa.v2 import operation_pb2


class Resource(Generic[M]):
    """The resources of one kind. Custom verbs of the contract are methods too: `client.instances.start(id)`."""

    def __init__(self, client: "Client", kind: contract.Kind) -> None:
        self._client, self._of = client, Requests[M](kind)

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
        place = Watched(revision)
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
            return self.get(id_of(begun.resource))
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
            method, request = self._of.method("wait"), wait_request(id, left)
            operation = self._client.call(method, request, limit=left + CALL_LIMIT).resource
            if operation.phase in ENDED or monotonic() >= deadline:
                return judged(operation)


class Client(Place):
    """A connection to Kahuna; made when first used. Each kind is an attribute: `client.instances`."""

    def of(self, message: type[M]) -> Resource[M]:
        """The resources that are such messages."""
        return Resource(self, contract.load().kinds[message.DESCRIPTOR.name])

    @cached_property
    def operations(self) -> Operations:
        """What was asked for."""
        return Operations(self, contract.load().kinds["Operation"])

    def __getattr__(self, name: str) -> Resource[Any]:
        return Resource(self, kind_of(name))

    def call(self, method: contract.Method, request: Message, *, limit: float = CALL_LIMIT) -> Begun[Any]:
        """One call, as it is in the contract."""
        try:
            send = self._channel.unary_unary(method.path, **codecs(method))
            response, call = send.with_call(request, timeout=limit, metadata=self.metadata)
        except grpc.RpcError as error:
            raise translated(error) from None
        return Begun(response, operation_id(call.initial_metadata()))

    def stream(self, method: contract.Method, request: Message) -> Iterator[Any]:
        """One call that answers with a stream. Closing the iterator ends it."""
        call = self._channel.unary_stream(method.path, **codecs(method))(request, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            call.cancel()

    def converse(self, method: contract.Method, requests: Iterator[Message]) -> Iterator[Any]:
        """One call with a stream both ways. Closing the iterator ends it."""
        call = self._channel.stream_stream(method.path, **codecs(method))(requests, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            call.cancel()

    @cached_property
    def _channel(self) -> grpc.Channel:
        if self.credentials is None:
            return grpc.insecure_channel(self.target, OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, OPTIONS)

    def close(self) -> None:
        """Ends the connection and what runs on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
