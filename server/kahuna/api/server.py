"""Serves the kinds' services over gRPC, every method by its descriptor."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from prometheus_client import Counter, Histogram

from kahuna.access import CALLER, SERIALIZE, Context, Handler, abort, as_refusal
from kahuna.api.methods import streaming, unary
from kahuna.domain.errors import Refusal
from kahuna.domain.validation import check_request
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.tracking import Cause
from kahuna.security.identity import ScopedView, scope_of
from kahuna.store.resource import CONTRACT
from kahuna.store.view import View
from kowa import contract

CALLS = Counter("kahuna_calls", "Calls answered.", ["method", "code"])
CALL_SECONDS = Histogram("kahuna_call_seconds", "How long calls took.", ["method"])
OPERATION_HEADER = "kowabunga-operation"


class ApiHandler(grpc.GenericRpcHandler):
    """Serves all methods of the API from one table: gRPC queries its handlers one after the other, for each call."""

    def __init__(self, kinds: Iterable[Kind[Any]], view: View) -> None:
        """Raises AssertionError when a method of the contract is not served."""
        self._handlers = {
            method.path: (_streaming if method.streams else _unary)(kind, method, view)
            for kind in kinds
            for method in kind.described.service.methods.values()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        return self._handlers.get(handler_call_details.method)


def _reader(method: contract.Method, view: View) -> Callable[[bytes], tuple[Call, Message]]:
    """Returns a parser of a method's requests, which yields the call with the caller's view, and the request.

    It runs inside the handler: gRPC would answer a message that it can't parse by itself, without our refusal.
    """
    parse = CONTRACT.stub(method.request.name).FromString

    def read(data: bytes) -> tuple[Call, Message]:
        try:
            request = parse(data)
        except DecodeError:
            name = method.request.name.rpartition(".")[2]
            raise Refusal("INVALID_ARGUMENT", f"the request is not a {name}") from None
        check_request(request)
        caller = CALLER.get()
        scope = scope_of(caller.identity)
        return Call(Cause(method.name, caller.identity.subject, caller.reason, scope), ScopedView(view, scope)), request

    return read


def _unary(kind: Kind[Any], method: contract.Method, view: View) -> Handler:
    read, carry_out = _reader(method, view), unary(kind, method)
    seconds = CALL_SECONDS.labels(method.name)
    answered = CALLS.labels(method.name, "OK")

    async def serve(data: bytes, context: Context) -> Message | None:
        started = time.perf_counter()
        try:
            answer, operation = await carry_out(*read(data))
            if operation:
                await context.send_initial_metadata(((OPERATION_HEADER, operation),))
            answered.inc()
            return answer
        except Exception as error:  # noqa: BLE001 - error boundary: no internals may get out
            refusal = as_refusal(method.name, error)
        finally:
            seconds.observe(time.perf_counter() - started)
        CALLS.labels(method.name, refusal.status).inc()
        await abort(context, refusal)
        return None

    return grpc.unary_unary_rpc_method_handler(serve, None, SERIALIZE)


def _streaming(kind: Kind[Any], method: contract.Method, view: View) -> Handler:
    read, carry_out = _reader(method, view), streaming(kind, method)

    async def serve(data: bytes, context: Context) -> AsyncIterator[Message]:
        try:
            async for answer in carry_out(*read(data)):
                yield answer
        except Exception as error:  # noqa: BLE001 - error boundary
            await abort(context, as_refusal(method.name, error))

    return grpc.unary_stream_rpc_method_handler(serve, None, SERIALIZE)
