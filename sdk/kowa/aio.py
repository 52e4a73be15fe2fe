"""The client for asyncio, `AsyncClient`. `Client` has the same methods, which block."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from datetime import timedelta
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Self

import grpc.aio
from google.protobuf import field_mask_pb2
from google.protobuf.message import Message

from kowa import calls, contract, errors
from kowa.backoff import Backoff
from kowa.calls import Answer, Connection, Event, M
from kowa.v2 import operation_pb2

if TYPE_CHECKING:
    from kowa.client import Client


class AsyncResource(Generic[M]):
    """The resources of one kind. Custom verbs of the contract are methods too: `client.instances.start(id)`.

    A verb that answers with a stream returns an iterator: `client.instances.console(id)`.
    A change waits until it is done; `begin_start` does not wait, `plan_start` returns the result without changing it.
    """

    def __init__(self, client: "AsyncClient | Client", kind: contract.Kind) -> None:
        self._client, self._kind = client, kind

    async def get(self, id: str) -> M:
        """Returns one, by its id."""
        return (await self.begin("get", id)).resource

    async def list(self, *, filter: str = "", order_by: str = "", page_size: int = 0) -> AsyncGenerator[M, None]:
        """Yields all that match, read a page at a time."""
        fields: dict[str, Any] = {"filter": filter, "order_by": order_by, "page_size": page_size}
        page: Any = (await self.begin("list", **fields)).resource
        while True:
            for resource in getattr(page, self._kind.nouns):
                yield resource
            if not page.next_page_token:
                return
            page = (await self.begin("list", **fields, page_token=page.next_page_token)).resource

    async def create(self, resource: M, *, request_id: str = "", limit: float | None = None) -> M:
        """Creates one and waits until it is done.

        After Unavailable, repeat it with the same `request_id`: it is still done only once. So with every change.
        """
        return await self._finish(await self.begin_create(resource, request_id=request_id), limit)

    async def begin_create(self, resource: M, *, request_id: str = "") -> Answer[M]:
        """Creates one, and does not wait for its operation."""
        return await self.begin("create", request_id=request_id, **self._create_fields(resource))

    async def plan_create(self, resource: M) -> M:
        """Returns the resource that would be created, or raises the error; changes nothing."""
        return await self.plan("create", **self._create_fields(resource))

    async def update(
        self, resource: M, mask: Iterable[str] = (), *, request_id: str = "", limit: float | None = None
    ) -> M:
        """Changes the fields of the mask and waits until that is done.

        Without a mask, a resource that was read from the platform (it has an etag) replaces the stored one, its empty
        fields included; of any other resource, only the fields that are set are changed.
        """
        return await self._finish(await self.begin_update(resource, mask, request_id=request_id), limit)

    async def begin_update(self, resource: M, mask: Iterable[str] = (), *, request_id: str = "") -> Answer[M]:
        """Changes it, and does not wait for its operation."""
        return await self.begin("update", request_id=request_id, **self._update_fields(resource, mask))

    async def plan_update(self, resource: M, mask: Iterable[str] = ()) -> M:
        """Returns the resource as it would be after the change, or raises the error; changes nothing."""
        return await self.plan("update", **self._update_fields(resource, mask))

    async def delete(self, id: str, *, etag: str = "", request_id: str = "", limit: float | None = None) -> None:
        """Deletes one and waits until it is gone."""
        await self._finish(await self.begin_delete(id, etag=etag, request_id=request_id), limit)

    async def begin_delete(self, id: str, *, etag: str = "", request_id: str = "") -> Answer[Any]:
        """Marks one for deletion, and does not wait for its operation."""
        return await self.begin("delete", id, etag=etag, request_id=request_id)

    async def plan_delete(self, id: str, *, etag: str = "") -> None:
        """Raises the error that a deletion would raise, if any; changes nothing."""
        await self.plan("delete", id, etag=etag)

    async def watch(self, filter: str = "", revision: int = 0) -> AsyncGenerator[Event[M], None]:
        """Yields the resources, then their changes; or only the changes after a revision.

        The event `synced` means that everything up to its revision has been sent. A broken stream is resumed from there
        however long Kahuna is unreachable, so later events are repeated. Raises Invalid with the reason
        REVISION_COMPACTED when that revision is too old: start again without one.
        """
        backoff, resumable = Backoff(*calls.PAUSES_S), False
        while True:
            try:
                async with aclosing(self._stream("watch", filter=filter, revision=revision)) as responses:
                    async for response in responses:
                        backoff.reset()
                        event: Event[M] = calls.to_event(self._kind, response)
                        # A revision may have several events: only `synced` comes after the last of them.
                        if event.change == "synced":
                            revision = event.revision
                        resumable = resumable or event.change == "synced" or revision > 0
                        yield event
                return
            except errors.Unavailable:
                if not resumable:
                    raise
                await self._client.pause(backoff.next_pause())

    async def begin(self, /, verb: str, id: str = "", **fields: object) -> Answer[M]:
        """Calls a custom verb, of one resource or (without an id) of the kind, and does not wait for its operation."""
        method = self._method(verb)
        return await self._client.unary_unary(method, calls.prepare(method, id=id, **fields))

    async def do(self, /, verb: str, id: str = "", *, limit: float | None = None, **fields: object) -> M:
        """Calls a custom verb and waits until it is done."""
        return await self._finish(await self.begin(verb, id, **fields), limit)

    async def plan(self, /, verb: str, id: str = "", **fields: object) -> M:
        """Returns the resource as it would be after a custom verb, or raises the error; changes nothing."""
        if not self._method(verb).mutates:
            raise AttributeError(f"{verb} of {self._kind.plural} has no plan")
        return (await self.begin(verb, id, validate_only=True, **fields)).resource

    def __getattr__(self, name: str) -> Callable[..., Any]:
        prefix, _, rest = name.partition("_")
        by_prefix: dict[str, Callable[..., Any]] = {"begin": self.begin, "plan": self.plan}
        verb = rest if prefix in by_prefix else name
        default: Callable[..., Any] = self._stream if self._method(verb).streams else self.do
        return partial(by_prefix.get(prefix, default), verb)

    def _method(self, verb: str) -> contract.Method:
        try:
            return self._kind.service.methods[verb.replace("_", "-")]
        except KeyError:
            raise AttributeError(f"{self._kind.plural} have no method {verb}") from None

    def _stream(self, verb: str, id: str = "", **fields: object) -> AsyncGenerator[Any, None]:
        method = self._method(verb)
        return self._client.unary_stream(method, calls.prepare(method, id=id, **fields))

    def _create_fields(self, resource: M) -> dict[str, Any]:
        return {self._kind.noun: resource}

    def _update_fields(self, resource: Any, mask: Iterable[str]) -> dict[str, Any]:
        """The fields of an update's request. A resource with an etag was read, so all of its fields count.

        Immutable fields are in the mask too, so that Kahuna rejects a change of one by its name.
        """
        paths = list(mask) or ([field.name for field in self._kind.writable] if resource.meta.etag else [])
        return {self._kind.noun: resource, "update_mask": field_mask_pb2.FieldMask(paths=paths)}

    async def _finish(self, answer: Answer[M], limit: float | None) -> M:
        """Waits for the operation; returns the resource, read again if the operation has changed it."""
        resource: Any = answer.resource
        if answer.operation_id:
            operations = AsyncOperations(self._client, contract.load().kinds["Operation"])
            await operations.wait(answer.operation_id, limit)
            if self._kind.converges and resource.DESCRIPTOR.full_name == self._kind.message.name:
                return await self.get(resource.meta.id)
        return answer.resource


class AsyncOperations(AsyncResource[operation_pb2.Operation]):
    """Operations: the requested changes and their progress."""

    async def wait(
        self: AsyncResource[operation_pb2.Operation], id: str, limit: float | None = None
    ) -> operation_pb2.Operation:
        """Returns the operation when it is done. Kahuna may be unreachable for a while.

        Raises OperationFailed when it ended otherwise, OperationPending when the time is up, Unavailable when Kahuna is
        unreachable then.
        """
        client, method, backoff = self._client, self._method("wait"), Backoff(*calls.PAUSES_S)
        deadline = monotonic() + (client.operation_limit if limit is None else limit)
        while True:
            poll = min(max(deadline - monotonic(), 0.001), calls.POLL_S)
            request = calls.prepare(method, id=id, timeout=timedelta(seconds=poll))
            try:
                operation = (await client.unary_unary(method, request, limit=poll + client.call_limit)).resource
            except errors.Unavailable:
                pause = min(backoff.next_pause(), deadline - monotonic())
                if pause <= 0:
                    raise
                await client.pause(pause)
                continue
            backoff.reset()
            if operation.phase in calls.ENDED or monotonic() >= deadline:
                return calls.raise_unless_done(operation)


class AsyncClient(Connection):
    """A connection to Kahuna for asyncio, opened on first use. Each kind is an attribute: `client.instances`."""

    def of(self, message: type[M]) -> AsyncResource[M]:
        """The resources of a message's kind."""
        return AsyncResource(self, contract.load().kinds[message.DESCRIPTOR.name])

    @cached_property
    def operations(self) -> AsyncOperations:
        """The operations of all changes."""
        return AsyncOperations(self, contract.load().kinds["Operation"])

    def __getattr__(self, name: str) -> AsyncResource[Any]:
        return AsyncResource(self, calls.kind_of(name))

    async def call(self, method: contract.Method, request: Message, *, limit: float | None = None) -> Answer[Any]:
        """Makes a call that has one response. `limit` is in seconds."""
        with self.translated():
            send = self._channel.unary_unary(method.path, **calls.codecs(method))
            call = send(request, timeout=self.call_limit if limit is None else limit, metadata=self.metadata)
            return Answer(await call, calls.operation_id(await call.initial_metadata()))

    async def stream(self, method: contract.Method, request: Message) -> AsyncGenerator[Any, None]:
        """Makes a call that answers with a stream. Closing the iterator ends it."""
        with self.translated():
            call = self._channel.unary_stream(method.path, **calls.codecs(method))(request, metadata=self.metadata)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    unary_unary, unary_stream = call, stream

    async def pause(self, seconds: float) -> None:
        """Sleeps."""
        await asyncio.sleep(seconds)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, calls.OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, calls.OPTIONS)

    async def close(self) -> None:
        """Closes the connection and ends its calls."""
        self._closed.set()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
