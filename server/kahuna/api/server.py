"""Puts the services on the wire, every method by its descriptor."""

import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from kahuna import metrics
from kahuna.api.access import abort, unforeseen
from kahuna.api.service import Context, StandardMethods
from kahuna.domain.errors import Refusal
from kahuna.domain.validation import check_request
from kahuna.store.resource import CONTRACT
from kowa import contract


def handlers(services: Iterable[StandardMethods]) -> list[grpc.GenericRpcHandler]:
    """The handlers of all services. Raises AssertionError when a method of the contract is not served."""
    found = []
    for service in services:
        described = service.described.service
        found.append(
            grpc.method_handlers_generic_handler(
                described.name, {method.name: _handler(service, method) for method in described.methods.values()}
            )
        )
    return found


def _handler(service: StandardMethods, method: contract.Method) -> "grpc.RpcMethodHandler[Any, Any]":
    own = method.verb.replace("-", "_")
    assert hasattr(service, own), f"{type(service).__name__} does not serve {method.name}"
    if method.converses:
        stream = _conversing(getattr(service, own), method)
        # Here gRPC reads when the call asks for the next, so what is wrong is raised in the call.
        return grpc.stream_stream_rpc_method_handler(stream, _parser(method), _serialize)
    if method.streams:
        stream = _streaming(getattr(service, own), method)
        return grpc.unary_stream_rpc_method_handler(stream, None, _serialize)
    # A verb that changes desired state takes the resource; one that awaits is a method like the standard ones.
    served = getattr(service, own)
    target = served if inspect.iscoroutinefunction(served) else service.verb
    return grpc.unary_unary_rpc_method_handler(_unary(target, method), None, _serialize)


def _parser(method: contract.Method) -> Callable[[bytes], Message]:
    """Reads a method's requests. It runs inside the calls: what gRPC reads by itself, it also answers by itself."""
    read = CONTRACT.stub(method.request.name).FromString

    def parse(data: bytes) -> Message:
        try:
            return read(data)
        except DecodeError:
            name = method.request.name.rpartition(".")[2]
            raise Refusal("INVALID_ARGUMENT", f"the request is not a {name}") from None

    return parse


def _unary(target: Callable[..., Any], method: contract.Method) -> Callable[[bytes, Context], Any]:
    parse = _parser(method)
    seconds = metrics.CALL_SECONDS.labels(method.name)
    answered = metrics.CALLS.labels(method.name, "OK")

    async def call(data: bytes, context: Context) -> Message | None:
        begun = time.perf_counter()
        try:
            request = parse(data)
            check_request(request)
            answer: Message = await target(request, context, method)
            answered.inc()
            return answer
        except Refusal as refused:
            refusal = refused
        except Exception as error:  # noqa: BLE001 - the edge: nothing of the inside may get out
            refusal = unforeseen(method.name, error)
        finally:
            seconds.observe(time.perf_counter() - begun)
        metrics.CALLS.labels(method.name, refusal.code.name).inc()
        await abort(context, refusal)
        return None

    return call


def _streaming(
    target: Callable[..., AsyncIterator[Message]], method: contract.Method
) -> Callable[[bytes, Context], Any]:
    parse = _parser(method)

    async def call(data: bytes, context: Context) -> AsyncIterator[Message]:
        try:
            request = parse(data)
            check_request(request)
            async for answer in target(request, context, method):
                yield answer
        except Refusal as refusal:
            await abort(context, refusal)
        except Exception as error:  # noqa: BLE001 - the edge
            await abort(context, unforeseen(method.name, error))

    return call


def _conversing(
    target: Callable[..., AsyncIterator[Message]], method: contract.Method
) -> Callable[[Any, Context], Any]:
    async def call(requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        try:
            async for answer in target(requests, context, method):
                yield answer
        except Refusal as refusal:
            await abort(context, refusal)
        except Exception as error:  # noqa: BLE001 - the edge
            await abort(context, unforeseen(method.name, error))

    return call


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
