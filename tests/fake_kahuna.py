"""A Kahuna that fails on purpose and records its calls. Everything else is tested against the real one."""

import asyncio
import re
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from kowa import contract
from kowa.calls import ENDED
from kowa.v2 import meta_pb2, operation_pb2

KEY = "test-key"
TIMEOUT_S = 60.0
PHASES_BY_NAME = {"doomed": operation_pb2.PHASE_FAILED, "slow": operation_pb2.PHASE_WAITING}


@pytest.fixture
def fake_kahuna() -> Iterator["FakeKahuna"]:
    """A running fake Kahuna without resources."""
    kahuna = FakeKahuna()
    kahuna.start()
    yield kahuna
    kahuna.stop()


@dataclass
class FakeKahuna:
    """Serves Create, Get, List, Watch and Wait of all kinds from memory; other methods return an empty message.

    The operation of a resource named `doomed` fails; that of one named `slow` waits until `finish`.
    """

    unavailable: int = 0  # the number of next calls that fail
    calls: list[tuple[str, Message, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""
    _cuts: int = 0
    _items: dict[str, Any] = field(default_factory=dict)
    _log: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Starts to serve in a thread; returns when it does."""
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        assert started.wait(TIMEOUT_S)

    def stop(self) -> None:
        """Stops it and waits for its end; does nothing if it has ended."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(TIMEOUT_S)

    def cut(self) -> None:
        """Breaks the open watches."""
        self._cuts += 1
        self._run(self._wake())

    def finish(self) -> None:
        """Ends the waiting operations."""
        for item in self._items.values():
            if isinstance(item, operation_pb2.Operation) and item.phase == operation_pb2.PHASE_WAITING:
                item.phase = operation_pb2.PHASE_DONE
        self._run(self._wake())

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped, self._changed = asyncio.Event(), asyncio.Condition()
        server = grpc.aio.server()
        for kind in contract.load().kinds.values():
            handlers = {method.name: self._handler(kind, method) for method in kind.service.methods.values()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(kind.service.name, handlers),))
        self.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        started.set()
        await self._stopped.wait()
        await server.stop(None)

    def _handler(self, kind: contract.Kind, method: contract.Method) -> Any:
        response_type = contract.load().stub(method.response)

        async def return_empty(*_: Any) -> Message:
            return response_type()

        act: Callable[..., Awaitable[Any]] = getattr(self, f"_{method.verb}", return_empty)
        codecs: dict[str, Any] = {
            "request_deserializer": contract.load().stub(method.request.name).FromString,
            "response_serializer": contract.load().stub(method.response).SerializeToString,
        }

        async def admit(request: Any, context: Any) -> None:
            self.calls.append((method.name, request, dict(context.invocation_metadata())))
            if self.unavailable > 0:
                self.unavailable -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Kahuna is starting.")

        async def unary(request: Any, context: Any) -> Any:
            await admit(request, context)
            return await act(kind, request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            await admit(request, context)
            async for event in self._watch(kind, request):
                yield event
            await context.abort(grpc.StatusCode.UNAVAILABLE, "The stream was cut.")

        if method.streams:
            return grpc.unary_stream_rpc_method_handler(stream, **codecs)
        return grpc.unary_unary_rpc_method_handler(unary, **codecs)

    async def _create(self, kind: contract.Kind, request: Any, context: Any) -> Any:
        item = getattr(request, kind.noun)
        if item.name == "too-big":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "No host has room; free some memory.")
        item.meta.id = str(uuid.uuid4())
        operation = operation_pb2.Operation(
            meta=meta_pb2.Meta(id=str(uuid.uuid4())),
            method=f"Create{kind.name}",
            target_name=item.name,
            phase=PHASES_BY_NAME.get(item.name, operation_pb2.PHASE_DONE),
            message="The fake wants it so.",
        )
        for created in (item, operation):
            self._items[created.meta.id] = created
            self._log.append(created)
        await self._wake()
        await context.send_initial_metadata((("kowabunga-operation", operation.meta.id),))
        return item

    async def _get(self, kind: contract.Kind, request: Any, context: Any) -> Any:
        if request.id not in self._items:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is none.")
        return self._items[request.id]

    async def _list(self, kind: contract.Kind, request: Any, context: Any) -> Any:
        items = [item for item in self._items.values() if type(item).__name__ == kind.name]
        if name := re.match(r'name = "(.*?)"', request.filter):  # all items if none has the name
            items = [item for item in items if item.name == name[1]] or items
        return contract.load().stub(kind.service.methods["list"].response)(**{kind.nouns: items})

    async def _wait(self, kind: contract.Kind, request: Any, context: Any) -> Any:
        operation = self._items[request.id]
        try:
            async with asyncio.timeout(request.timeout.ToTimedelta().total_seconds()), self._changed:
                await self._changed.wait_for(lambda: operation.phase in ENDED)
        except TimeoutError:
            pass
        return operation

    async def _watch(self, kind: contract.Kind, request: Any) -> AsyncIterator[Any]:
        event: Any = contract.load().stub(kind.service.methods["watch"].response)
        sent, cuts = request.revision, self._cuts
        while self._cuts == cuts:
            for item in self._log[sent:]:
                sent += 1
                if type(item).__name__ == kind.name:
                    yield event(change=meta_pb2.CHANGE_PUT, revision=sent, id=item.meta.id, **{kind.noun: item})
            yield event(change=meta_pb2.CHANGE_SYNCED, revision=sent)
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._log) > sent or self._cuts != cuts)  # noqa: B023 - awaited
