"""The platform as Python objects: `Client` for ordinary code, `AsyncClient` the same for asyncio.

    with Client("kahuna.example:443", key="...") as client:
        region = client.regions.create(Region(name="eu"))
        for zone in client.zones.list(filter=f'region = "{region.meta.id}"'):
            print(zone.name)

Every kind of the contract is an attribute, in the plural; `client.of(Region)` is the same, known to type checkers.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
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


class Resource(Generic[M]):
    """The resources of one kind. Custom verbs of the contract are methods too: `client.instances.start(id)`.

    One that answers with a stream is an iterator: `client.instances.console(id)`.
    A change waits until it is done; `begin_start` only begins it, `plan_start` says what would come of it.
    """

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

    def create(self, resource: M, *, request_id: str = "", limit: float | None = None) -> M:
        """Creates one and waits until it is done.

        After Unavailable it may be repeated with the same `request_id`: it is done once. So may every change.
        """
        return self._finish(self.begin_create(resource, request_id=request_id), limit)

    def begin_create(self, resource: M, *, request_id: str = "") -> Begun[M]:
        """Creates one; its operation goes on."""
        return self._begin("create", self._of.request("create", request_id=request_id, **self._of.create(resource)))

    def plan_create(self, resource: M) -> M:
        """What would be created; or raises why it can't be. Nothing is changed."""
        return self._plan("create", **self._of.create(resource))

    def update(self, resource: M, mask: Iterable[str] = (), *, request_id: str = "", limit: float | None = None) -> M:
        """Changes the fields of the mask and waits until that is done.

        Without a mask, what was read from the platform (it has an etag) is sent as a whole, and what was emptied in it
        is emptied; of any other resource what is set is taken.
        """
        return self._finish(self.begin_update(resource, mask, request_id=request_id), limit)

    def begin_update(self, resource: M, mask: Iterable[str] = (), *, request_id: str = "") -> Begun[M]:
        """Changes it; its operation goes on."""
        fields = self._of.update(resource, mask)
        return self._begin("update", self._of.request("update", request_id=request_id, **fields))

    def plan_update(self, resource: M, mask: Iterable[str] = ()) -> M:
        """What it would be; or raises why it can't be. Nothing is changed."""
        return self._plan("update", **self._of.update(resource, mask))

    def delete(
        self,
        id: str,  # noqa: A002
        *,
        etag: str = "",
        request_id: str = "",
        limit: float | None = None,
    ) -> None:
        """Deletes one and waits until it is gone."""
        begun = self.begin_delete(id, etag=etag, request_id=request_id)
        if begun.operation_id:
            self._client.operations.wait(begun.operation_id, limit)

    def begin_delete(self, id: str, *, etag: str = "", request_id: str = "") -> Begun[Any]:  # noqa: A002
        """Marks one for deletion; its operation goes on."""
        return self._begin("delete", self._of.request("delete", id=id, etag=etag, request_id=request_id))

    def plan_delete(self, id: str, *, etag: str = "") -> None:  # noqa: A002
        """Raises why one can't be deleted, if it can't. Nothing is changed."""
        self._plan("delete", id=id, etag=etag)

    def watch(self, filter: str = "", revision: int = 0) -> Generator[Event[M], None, None]:  # noqa: A002
        """The set, then its changes; or only those after a revision. `synced` says that all up to its revision is sent.

        A stream that breaks is resumed from there, however long Kahuna is away: what came after it comes again. Raises
        Invalid with the reason REVISION_COMPACTED when that is too long ago: start anew.
        """
        place = WatchPosition(revision)
        while True:
            try:
                request = self._of.request("watch", filter=filter, revision=place.revision)
                for response in self._client.stream(self._of.method("watch"), request):
                    yield place.seen(self._of.event(response))
                return
            except errors.Unavailable:
                if not (pause := place.pause()):
                    raise
                self._client.pause(pause)

    def begin(self, verb: str, id: str = "", **fields: object) -> Begun[M]:  # noqa: A002
        """A custom verb, of one or, if it has no id, of the kind; its operation goes on."""
        return self._begin(verb, self._of.request(verb, id=id, **fields))

    def do(self, verb: str, id: str = "", *, limit: float | None = None, **fields: object) -> M:  # noqa: A002
        """A custom verb, waiting until it is done."""
        return self._finish(self.begin(verb, id, **fields), limit)

    def plan(self, verb: str, id: str = "", **fields: object) -> M:  # noqa: A002
        """What it would be after a custom verb; or raises why it can't be. Nothing is changed."""
        return self._plan(verb, id=id, **fields)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        form, _, rest = name.partition("_")
        forms: dict[str, Callable[..., Any]] = {"begin": self.begin, "plan": self.plan}
        verb = rest if form in forms else name
        do: Callable[..., Any] = self._stream if self._of.method(verb).streams else self.do
        return partial(forms.get(form, do), verb)

    def _stream(self, verb: str, id: str = "", **fields: object) -> Generator[Any, None, None]:  # noqa: A002
        return self._client.stream(self._of.method(verb), self._of.request(verb, id=id, **fields))

    def _begin(self, verb: str, request: Message) -> Begun[Any]:
        return self._client.call(self._of.method(verb), request)

    def _plan(self, verb: str, **fields: object) -> M:
        planned: M = self._begin(verb, self._of.plan(verb, **fields)).resource
        return planned

    def _finish(self, begun: Begun[M], limit: float | None) -> M:
        if begun.operation_id:
            self._client.operations.wait(begun.operation_id, limit)
        if self._of.kind.converges and begun.operation_id and self._of.is_one(begun.resource):
            return self.get(id_of(begun.resource))
        return begun.resource


class Operations(Resource[operation_pb2.Operation]):
    """What was asked for and how it goes."""

    def wait(self, id: str, limit: float | None = None) -> operation_pb2.Operation:  # noqa: A002
        """Returns the operation when it is done. Kahuna may be away meanwhile.

        Raises OperationFailed when it ended otherwise, OperationPending when the time is up, Unavailable when Kahuna is
        away then.
        """
        method, client = self._of.method("wait"), self._client
        waiting = Wait(client.operation_limit if limit is None else limit)
        while True:
            call_limit = waiting.call_limit(client.call_limit)
            try:
                operation = client.call(method, waiting.request(id), limit=call_limit).resource
            except errors.Unavailable:
                if not (pause := waiting.pause()):
                    raise
                client.pause(pause)
                continue
            if waiting.ended(operation):
                return raise_unless_done(operation)


class Client(ConnectionSettings):
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

    def call(self, method: contract.Method, request: Message, *, limit: float | None = None) -> Begun[Any]:
        """One call, as it is in the contract."""
        with self._translated():
            send = self._channel.unary_unary(method.path, **codecs(method))
            seconds = self.call_limit if limit is None else limit
            response, call = send.with_call(request, timeout=seconds, metadata=self.metadata)
            return Begun(response, operation_id(call.initial_metadata()))

    def stream(self, method: contract.Method, request: Message) -> Generator[Any, None, None]:
        """One call that answers with a stream. Closing the iterator ends it."""
        with self._translated():
            call = self._channel.unary_stream(method.path, **codecs(method))(request, metadata=self.metadata)
            try:
                yield from call
            finally:
                call.cancel()

    def pause(self, seconds: float) -> None:
        """Waits; not any longer when the client is closed."""
        self._closed.wait(seconds)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What goes wrong, in our words. A call on a closed channel is a ValueError for gRPC."""
        try:
            yield
        except (grpc.RpcError, ValueError) as error:
            if self._closed.is_set():
                raise errors.Closed() from None
            if isinstance(error, grpc.RpcError):
                raise kowa_error(error) from None
            raise

    @cached_property
    def _channel(self) -> grpc.Channel:
        if self.credentials is None:
            return grpc.insecure_channel(self.target, OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, OPTIONS)

    def close(self) -> None:
        """Ends the connection and what runs on it."""
        self._closed.set()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
