"""A Kahuna that answers every call with an empty message, and records its requests."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from google.protobuf.message import Message

from kowa import contract


@dataclass(frozen=True)
class Recording:
    """A client of a gateway, and the requests that went through it."""

    rest: httpx.Client
    calls: list[Message]

    def request(self, method: str, path: str, body: bytes | str | Iterator[bytes] = b"") -> httpx.Response:
        """Sends a request and returns the response; `calls` then has only the calls of this request."""
        self.calls.clear()
        return self.rest.request(method, path, content=body)


class _Recorder(grpc.GenericRpcHandler):
    def __init__(self, calls: list[Message]) -> None:
        self._calls = calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = contract.load().methods[handler_call_details.method]
        respond: Callable[[Message, grpc.ServicerContext], object]
        if method.streams:
            respond, kind = (lambda request, _: iter(self._record(request))), grpc.unary_stream_rpc_method_handler
        else:
            respond, kind = (lambda request, _: self._record(request)[0]), grpc.unary_unary_rpc_method_handler
        return kind(respond, contract.load().stub(method.request.name).FromString, lambda empty: empty)

    def _record(self, request: Message) -> list[bytes]:
        self._calls.append(request)
        return [b""]


@contextlib.contextmanager
def recording(calls: list[Message]) -> Iterator[str]:
    """A Kahuna that records its requests. Yields its address."""
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[_Recorder(calls)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
