"""The platform as Python objects: `Client` blocks, `AsyncClient` is the same for asyncio.

    with Client("kahuna.example:443", key="...") as client:
        region = client.regions.create(Region(name="eu"))
        for zone in client.zones.list(filter=f'region = "{region.meta.id}"'):
            print(zone.name)

Every kind of the contract is an attribute, in the plural; `client.of(Region)` is the same, known to type checkers.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import cached_property, wraps
from inspect import iscoroutine
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import grpc
from google.protobuf.message import Message

from kowa import calls, contract
from kowa.aio import AsyncOperations, AsyncResource
from kowa.calls import Answer, Connection, M
from kowa.v2 import operation_pb2

P = ParamSpec("P")
T = TypeVar("T")


@overload
def blocking(
    method: Callable[Concatenate[AsyncResource[M], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Resource[M]", P], T]: ...
@overload
def blocking(
    method: Callable[Concatenate[AsyncResource[M], P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["Resource[M]", P], Generator[T, None, None]]: ...
def blocking(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turns a method of AsyncResource into one that blocks, or returns an ordinary iterator."""

    @wraps(method)
    def call(self: "Resource[Any]", *args: Any, **kwargs: Any) -> Any:
        return _finished(method(self.for_asyncio, *args, **kwargs))

    return call


class Resource(Generic[M]):
    __doc__ = AsyncResource.__doc__

    def __init__(self, client: "Client", kind: contract.Kind) -> None:
        self.for_asyncio: AsyncResource[M] = AsyncResource(client, kind)

    get = blocking(AsyncResource[M].get)
    list = blocking(AsyncResource[M].list)
    create = blocking(AsyncResource[M].create)
    begin_create = blocking(AsyncResource[M].begin_create)
    plan_create = blocking(AsyncResource[M].plan_create)
    update = blocking(AsyncResource[M].update)
    begin_update = blocking(AsyncResource[M].begin_update)
    plan_update = blocking(AsyncResource[M].plan_update)
    delete = blocking(AsyncResource[M].delete)
    begin_delete = blocking(AsyncResource[M].begin_delete)
    plan_delete = blocking(AsyncResource[M].plan_delete)
    watch = blocking(AsyncResource[M].watch)
    begin = blocking(AsyncResource[M].begin)
    do = blocking(AsyncResource[M].do)
    plan = blocking(AsyncResource[M].plan)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.for_asyncio, name)
        return lambda *args, **kwargs: _finished(method(*args, **kwargs))


class Operations(Resource[operation_pb2.Operation]):
    """Operations: the requested changes and their progress."""

    wait = blocking(AsyncOperations.wait)


class Client(Connection):
    """A connection to Kahuna, opened on first use. Each kind is an attribute: `client.instances`."""

    def of(self, message: type[M]) -> Resource[M]:
        """The resources of a message's kind."""
        return Resource(self, contract.load().kinds[message.DESCRIPTOR.name])

    @cached_property
    def operations(self) -> Operations:
        """The operations of all changes."""
        return Operations(self, contract.load().kinds["Operation"])

    def __getattr__(self, name: str) -> Resource[Any]:
        return Resource(self, calls.kind_of(name))

    def call(self, method: contract.Method, request: Message, *, limit: float | None = None) -> Answer[Any]:
        """Makes a call that has one response. `limit` is in seconds."""
        return _run(self.unary_unary(method, request, limit=limit))

    def stream(self, method: contract.Method, request: Message) -> Generator[Any, None, None]:
        """Makes a call that answers with a stream. Closing the iterator ends it."""
        return _iterate(self.unary_stream(method, request))

    # Called by AsyncResource. Here they block instead of suspending, and so need no event loop.

    async def unary_unary(self, method: contract.Method, request: Message, limit: float | None = None) -> Answer[Any]:
        """As `call`."""
        with self.translated():
            send = self._channel.unary_unary(method.path, **calls.codecs(method))
            seconds = self.call_limit if limit is None else limit
            response, call = send.with_call(request, timeout=seconds, metadata=self.metadata)
            return Answer(response, calls.operation_id(call.initial_metadata()))

    async def unary_stream(self, method: contract.Method, request: Message) -> AsyncGenerator[Any, None]:
        """As `stream`."""
        with self.translated():
            call = self._channel.unary_stream(method.path, **calls.codecs(method))(request, metadata=self.metadata)
            try:
                for response in call:
                    yield response
            finally:
                call.cancel()

    async def pause(self, seconds: float) -> None:
        """Sleeps, at most until the client is closed."""
        self._closed.wait(seconds)

    @cached_property
    def _channel(self) -> grpc.Channel:
        if self.credentials is None:
            return grpc.insecure_channel(self.target, calls.OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, calls.OPTIONS)

    def close(self) -> None:
        """Closes the connection and ends its calls."""
        self._closed.set()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finished(work: Any) -> Any:
    """Runs a coroutine of a blocking client to its result, or turns its generator into an ordinary one."""
    return _run(work) if iscoroutine(work) else _iterate(work)


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a blocking client waits for an event loop")


def _iterate(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    try:
        while True:
            yield _run(anext(items))
    except StopAsyncIteration:
        return
    finally:
        _run(items.aclose())
