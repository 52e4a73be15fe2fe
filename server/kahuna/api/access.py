"""The one place that says who gets in, and the one place that turns what went wrong into an answer."""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from kahuna.domain.errors import Refusal
from kahuna.security.identity import NOBODY, Identities, Identity, may
from kowa import contract
from kowa.v2 import options_pb2

log = structlog.get_logger()

# Methods of others' contracts, which carry no option of ours.
FOREIGN: Mapping[str, options_pb2.Access] = {
    f"/grpc.health.v1.Health/{method}": options_pb2.Access(role=options_pb2.ROLE_PUBLIC)
    for method in ("Check", "Watch")
}
MAX_REASON = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes the call under way, and why he says he does."""

    identity: Identity
    reason: str = ""


CALLER: ContextVar[Caller] = ContextVar("caller")

Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Default deny: a method is reached only by whom its option in the contract lets in."""

    def __init__(self, identities: Identities, methods: Mapping[str, options_pb2.Access]) -> None:
        self._identities = identities
        self._methods = {**FOREIGN, **methods}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        metadata = {key: str(value) for key, value in handler_call_details.invocation_metadata or ()}
        access = self._methods.get(handler_call_details.method)
        try:
            if access is None:
                raise Refusal("NOT_SERVED", f"there is no method {handler_call_details.method}")
            identity = self._identities.identify(metadata.get("authorization", ""))
            if not may(identity, access):
                raise _refusal(identity, handler_call_details.method)
        except Refusal as refusal:
            return _refusing(refusal)
        CALLER.set(Caller(identity, unquote(metadata.get("kowabunga-reason", ""))[:MAX_REASON]))
        return await continuation(handler_call_details)


def accesses(read: contract.Contract) -> dict[str, options_pb2.Access]:
    """The option of every method of the platform's API."""
    return {path: method.access for path, method in read.methods.items()}


def answer(refusal: Refusal) -> status_pb2.Status:
    """A refusal as callers get it."""
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain="kowabunga", metadata=refusal.details)
    details = [info, error_details_pb2.BadRequest(field_violations=[
        error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
        for violation in refusal.violations
    ])] if refusal.violations else [info]  # fmt: skip
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", refusal: Refusal) -> None:
    """Ends a call with a refusal."""
    details = answer(refusal).SerializeToString()
    await context.abort(refusal.code, refusal.message, (("grpc-status-details-bin", details),))


def unforeseen(method: str, error: Exception) -> Refusal:
    """What a caller hears of an error of ours: nothing of its inside."""
    log.error("call.failed", method=method, exc_info=error)
    return Refusal("INTERNAL", f"{method} failed; the server's log says why")


def _refusal(identity: Identity, method: str) -> Refusal:
    if identity is NOBODY:
        return Refusal("UNAUTHENTICATED", "no key was sent; send `authorization: Bearer <key>`")
    return Refusal("PERMISSION_DENIED", f"{identity.subject} may not call {method}")


def _refusing(refusal: Refusal) -> "grpc.RpcMethodHandler[Any, Any]":
    async def refuse(_: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await abort(context, refusal)

    # A stream on both sides fits every method: nothing of the request is read.
    return grpc.stream_stream_rpc_method_handler(refuse)
