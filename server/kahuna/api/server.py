"""Puts the kinds' services on the wire, every method by its descriptor."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from kahuna import metrics
from kahuna.api.methods import Methods, Streaming, Unary
from kahuna.domain.errors import Refusal
from kahuna.domain.validation import check_request
from kahuna.edge import CALLER, abort, internal_error
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.tracking import Cause
from kahuna.security.scope import ScopedView, scope_of
from kahuna.store.resource import CONTRACT
from kahuna.store.view import View
from kowa import contract

OPERATION_HEADER = "kowabunga-operation"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Parser = Callable[[bytes], Message]


def handlers(kinds: Iterable[Kind[Any]], view: View) -> list[grpc.GenericRpcHandler]:
    """The handlers of all services. Raises AssertionError when a method of the contract is not served."""
    found = []
    for kind in kinds:
        service, methods = kind.described.service, Methods(kind)
        served = {method.name: _handler(methods, method, view) for method in service.methods.values()}
        found.append(grpc.method_handlers_generic_handler(service.name, served))
    return found


def _handler(methods: Methods, method: contract.Method, view: View) -> "grpc.RpcMethodHandler[Any, Any]":
    if method.streams:
        return grpc.unary_stream_rpc_method_handler(
            _streaming(methods.streaming(method), method, view), None, _serialize
        )
    return grpc.unary_unary_rpc_method_handler(_unary(methods.unary(method), method, view), None, _serialize)


def _parser(method: contract.Method) -> Parser:
    """Reads a method's requests. It runs inside the calls: what gRPC reads by itself, it also answers by itself."""
    read = CONTRACT.stub(method.request.name).FromString

    def parse(data: bytes) -> Message:
        try:
            return read(data)
        except DecodeError:
            name = method.request.name.rpartition(".")[2]
            raise Refusal("INVALID_ARGUMENT", f"the request is not a {name}") from None

    return parse


def _call(method: contract.Method, view: View) -> Call:
    """The call under way, once its request is parsed: whose it is, and what they see."""
    caller = CALLER.get()
    scope = scope_of(caller.identity)
    return Call(Cause(method.name, caller.identity.subject, caller.reason, scope), ScopedView(view, scope))


def _unary(carry_out: Unary, method: contract.Method, view: View) -> Callable[[bytes, Context], Any]:
    parse = _parser(method)
    seconds = metrics.CALL_SECONDS.labels(method.name)
    answered = metrics.CALLS.labels(method.name, "OK")

    async def serve(data: bytes, context: Context) -> Message | None:
        begun = time.perf_counter()
        try:
            request = parse(data)
            check_request(request)
            answer, operation = await carry_out(_call(method, view), request)
            if operation:
                await context.send_initial_metadata(((OPERATION_HEADER, operation),))
            answered.inc()
            return answer
        except Refusal as refused:
            refusal = refused
        except Exception as error:  # noqa: BLE001 - the edge: nothing of the inside may get out
            refusal = internal_error(method.name, error)
        finally:
            seconds.observe(time.perf_counter() - begun)
        metrics.CALLS.labels(method.name, refusal.status).inc()
        await abort(context, refusal)
        return None

    return serve


def _streaming(carry_out: Streaming, method: contract.Method, view: View) -> Callable[[bytes, Context], Any]:
    parse = _parser(method)

    async def serve(data: bytes, context: Context) -> AsyncIterator[Message]:
        try:
            request = parse(data)
            check_request(request)
            async for answer in carry_out(_call(method, view), request):
                yield answer
        except Refusal as refusal:
            await abort(context, refusal)
        except Exception as error:  # noqa: BLE001 - the edge
            await abort(context, internal_error(method.name, error))

    return serve


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
