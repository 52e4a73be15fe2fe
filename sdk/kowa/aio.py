"""The same platform for asyncio: `AsyncClient`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Generic, Self

import grpc
import grpc.aio
from google.protobuf.message import Message

from kowa import contract, errors
from kowa.calls import (
    OPTIONS,
    Begun,
    ConnectionSettings,
    Event,
    M,
    Requests,
    Wait,
    WatchPosition,
    codecs,
    id_of,
    kind_of,
    kowa_error,
    operation_id,
    raise_unless_done,
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

    async def create(self, resource: M, *, request_id: str = "", limit: float | None = None) -> M:
        """Creates one and waits until it is done.

        After Unavailable it may be repeated with the same `request_id`: it is done once. So may every change.
        """
        return await self._finish(await self.begin_create(resource, request_id=request_id), limit)

    async def begin_create(self, resource: M, *, request_id: str = "") -> Begun[M]:
        """Creates one; its operation goes on."""
        return await self._begin(
            "create", self._of.request("create", request_id=request_id, **self._of.create(resource))
        )

    async def plan_create(self, resource: M) -> M:
        """What would be created; or raises why it can't be. Nothing is changed."""
        return await self._plan("create", **self._of.create(resource))

    async def update(
        self, resource: M, mask: Iterable[str] = (), *, request_id: str = "", limit: float | None = None
    ) -> M:
        """Changes the fields of the mask and waits until that is done.

        Without a mask, what was read from the platform (it has an etag) is sent as a whole, and what was emptied in it
        is emptied; of any other resource what is set is taken.
        """
        return await self._finish(await self.begin_update(resource, mask, request_id=request_id), limit)

    async def begin_update(self, resource: M, mask: Iterable[str] = (), *, request_id: str = "") -> Begun[M]:
        """Changes it; its operation goes on."""
        fields = self._of.update(resource, mask)
        return await self._begin("update", self._of.request("update", request_id=request_id, **fields))

    async def plan_update(self, resource: M, mask: Iterable[str] = ()) -> M:
        """What it would be; or raises why it can't be. Nothing is changed."""
        return await self._plan("update", **self._of.update(resource, mask))

    async def delete(
        self,
        id: str,  # noqa: A002
        *,
        etag: str = "",
        request_id: str = "",
        limit: float | None = None,
    ) -> None:
        """Deletes one and waits until it is gone."""
        begun = await self.begin_delete(id, etag=etag, request_id=request_id)
        if begun.operation_id:
            await self._client.operations.wait(begun.operation_id, limit)

    async def begin_delete(self, id: str, *, etag: str = "", request_id: str = "") -> Begun[Any]:  # noqa: A002
        """Marks one for deletion; its operation goes on."""
        return await self._begin("delete", self._of.request("delete", id=id, etag=etag, request_id=request_id))

    async def plan_delete(self, id: str, *, etag: str = "") -> None:  # noqa: A002
        """Raises why one can't be deleted, if it can't. Nothing is changed."""
        await self._plan("delete", id=id, etag=etag)

    async def watch(self, filter: str = "", revision: int = 0) -> AsyncGenerator[Event[M], None]:  # noqa: A002
        """The set, then its changes; or only those after a revision. `synced` says that all up to its revision is sent.

        A stream that breaks is resumed from there, however long Kahuna is away: what came after it comes again. Raises
        Invalid with the reason REVISION_COMPACTED when that is too long ago: start anew.
        """
        place = WatchPosition(revision)
        while True:
            try:
                request = self._of.request("watch", filter=filter, revision=place.revision)
                async with aclosing(self._client.stream(self._of.method("watch"), request)) as responses:
                    async for response in responses:
                        yield place.seen(self._of.event(response))
                return
            except errors.Unavailable:
                if not (pause := place.pause()):
                    raise
                await self._client.pause(pause)

    async def begin(self, verb: str, id: str = "", **fields: object) -> Begun[M]:  # noqa: A002
        """A custom verb, of one or, if it has no id, of the kind; its operation goes on."""
        return await self._begin(verb, self._of.request(verb, id=id, **fields))

    async def do(self, verb: str, id: str = "", *, limit: float | None = None, **fields: object) -> M:  # noqa: A002
        """A custom verb, waiting until it is done."""
        return await self._finish(await self.begin(verb, id, **fields), limit)

    async def plan(self, verb: str, id: str = "", **fields: object) -> M:  # noqa: A002
        """What it would be after a custom verb; or raises why it can't be. Nothing is changed."""
        return await self._plan(verb, id=id, **fields)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        form, _, rest = name.partition("_")
        forms: dict[str, Callable[..., Any]] = {"begin": self.begin, "plan": self.plan}
        verb = rest if form in forms else name
        do: Callable[..., Any] = self._stream if self._of.method(verb).streams else self.do
        return partial(forms.get(form, do), verb)

    def _stream(self, verb: str, id: str = "", **fields: object) -> AsyncGenerator[Any, None]:  # noqa: A002
        return self._client.stream(self._of.method(verb), self._of.request(verb, id=id, **fields))

    async def _begin(self, verb: str, request: Message) -> Begun[Any]:
        return await self._client.call(self._of.method(verb), request)

    async def _plan(self, verb: str, **fields: object) -> M:
        planned: M = (await self._begin(verb, self._of.plan(verb, **fields))).resource
        return planned

    async def _finish(self, begun: Begun[M], limit: float | None) -> M:
        if begun.operation_id:
            await self._client.operations.wait(begun.operation_id, limit)
        if self._of.kind.converges and begun.operation_id and self._of.is_one(begun.resource):
            return await self.get(id_of(begun.resource))
        return begun.resource


class AsyncOperations(AsyncResource[operation_pb2.Operation]):
    """What was asked for and how it goes, for asyncio."""

    async def wait(self, id: str, limit: float | None = None) -> operation_pb2.Operation:  # noqa: A002
        """As `Operations.wait`."""
        method, client = self._of.method("wait"), self._client
        waiting = Wait(client.operation_limit if limit is None else limit)
        while True:
            call_limit = waiting.call_limit(client.call_limit)
            try:
                operation = (await client.call(method, waiting.request(id), limit=call_limit)).resource
            except errors.Unavailable:
                if not (pause := waiting.pause()):
                    raise
                await client.pause(pause)
                continue
            if waiting.ended(operation):
                return raise_unless_done(operation)


class AsyncClient(ConnectionSettings):
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

    async def call(self, method: contract.Method, request: Message, *, limit: float | None = None) -> Begun[Any]:
        """One call, as it is in the contract."""
        with self._translated():
            send = self._channel.unary_unary(method.path, **codecs(method))
            seconds = self.call_limit if limit is None else limit
            call = send(request, timeout=seconds, metadata=self._metadata)
            return Begun(await call, operation_id(await call.initial_metadata()))

    async def stream(self, method: contract.Method, request: Message) -> AsyncGenerator[Any, None]:
        """One call that answers with a stream. Closing the iterator ends it."""
        with self._translated():
            call = self._channel.unary_stream(method.path, **codecs(method))(request, metadata=self._metadata)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    async def pause(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What goes wrong, in our words. Closing the channel cancels its calls, which is no wish to end our task."""
        try:
            yield
        except grpc.RpcError as error:
            raise (errors.Closed() if self._closed.is_set() else kowa_error(error)) from None
        except grpc.aio.UsageError:
            raise errors.Closed() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed.is_set() and task is not None and not task.cancelling():
                raise errors.Closed() from None
            raise

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
        self._closed.set()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
