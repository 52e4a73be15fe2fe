"""The same platform for asyncio: `AsyncClient`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
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


class AsyncResource(Generic[M]):
    """The resources of one kind, for asyncio. The same methods as `Resource`."""

    def __init__(self, client: "AsyncClient", kind: contract.Kind) -> None:
        self._client, self._of = client, Requests[M](kind)

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
        place = Watched(revision)
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
            return await self.get(id_of(begun.resource))
        return begun.resource


class AsyncOperations(AsyncResource[operation_pb2.Operation]):
    """What was asked for and how it goes, for asyncio."""

    async def wait(self, id: str, limit: float = OPERATION_LIMIT) -> operation_pb2.Operation:  # noqa: A002
        """As `Operations.wait`."""
        deadline = monotonic() + limit
        while True:
            left = deadline - monotonic()
            method, request = self._of.method("wait"), wait_request(id, left)
            operation = (await self._client.call(method, request, limit=left + CALL_LIMIT)).resource
            if operation.phase in ENDED or monotonic() >= deadline:
                return judged(operation)


class AsyncClient(Place):
    """A connection to Kahuna for asyncio; made when first used. Each kind is an attribute: `client.instances`."""

    def of(self, message: type[M]) -> AsyncResource[M]:
        """The resources that are such messages."""
        return AsyncResource(self, contract.load().kinds[message.DESCRIPTOR.name])

    @cached_property
    def operations(self) -> AsyncOperations:
        """What was asked for."""
        return AsyncOperations(self, contract.load().kinds["Operation"])

    def __getattr__(self, name: str) -> AsyncResource[Any]:
        return AsyncResource(self, kind_of(name))

    async def call(self, method: contract.Method, request: Message, *, limit: float = CALL_LIMIT) -> Begun[Any]:
        """One call, as it is in the contract."""
        call = self._channel.unary_unary(method.path, **codecs(method))(request, timeout=limit, metadata=self._metadata)
        try:
            return Begun(await call, operation_id(await call.initial_metadata()))
        except grpc.RpcError as error:
            raise translated(error) from None

    async def stream(self, method: contract.Method, request: Message) -> AsyncIterator[Any]:
        """One call that answers with a stream. Closing the iterator ends it."""
        call = self._channel.unary_stream(method.path, **codecs(method))(request, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            call.cancel()

    @cached_property
    def _metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*self.metadata)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, OPTIONS)

    async def close(self) -> None:
        """Ends the connection and what runs on it."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
