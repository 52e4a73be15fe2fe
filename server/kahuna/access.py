"""Access control of methods, and refusals as gRPC statuses: for the API and the agents' streams."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from operator import methodcaller
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2

from kahuna.domain.errors import Refusal
from kahuna.security.identity import ANONYMOUS, Identities, Identity, is_allowed
from kowa.formats import CONTROLS
from kowa.v2 import options_pb2

log = structlog.get_logger()

# gRPC's own services, whose methods have no access option. Reflection is for users only: without a key a client learns
# nothing about this Kahuna and costs it nothing, and agents use another contract.
GRPC_METHODS: Mapping[str, options_pb2.Access] = {
    "/grpc.health.v1.Health/Check": options_pb2.Access(role=options_pb2.ROLE_PUBLIC),
    "/grpc.health.v1.Health/Watch": options_pb2.Access(role=options_pb2.ROLE_PUBLIC),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": options_pb2.Access(role=options_pb2.ROLE_USER),
}
MAX_REASON_CHARS = 1024
# A status is sent in headers, of which gRPC takes 8 KiB: the message percent-encoded, all of it once more in base64.
MAX_MESSAGE_BYTES = 1536
MAX_DETAILS_BYTES, MAX_DETAIL_TEXT_BYTES = 1024, 512  # of all violations and of all details; of one text
ENTRY_OVERHEAD_BYTES = 8  # of an entry, in addition to its texts


class Caller(NamedTuple):
    """The caller of the current call, and the reason that they give for it."""

    identity: Identity
    reason: str = ""


CALLER: ContextVar[Caller] = ContextVar("caller")
SERIALIZE: Any = methodcaller("SerializeToString")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Denies by default: a method can be called only with the role that its option in the contract requires."""

    def __init__(
        self,
        identities: Identities,
        methods: Mapping[str, options_pb2.Access],
        refuse: "Callable[[str, Refusal], Handler] | None" = None,
    ) -> None:
        """`refuse` returns the handler of a method's refused call; default: it ends with the refusal's status."""
        self._identities = identities
        self._refuse = refuse or _refused
        self._methods = {**GRPC_METHODS, **methods}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        metadata = {key: str(value) for key, value in handler_call_details.invocation_metadata or ()}
        access = self._methods.get(handler_call_details.method)
        try:
            if access is None:
                raise Refusal("NOT_SERVED", f"there is no method {handler_call_details.method}")
            identity = self._identities.identify(metadata.get("authorization", ""))
            if not is_allowed(identity, access):
                if identity is ANONYMOUS:
                    raise Refusal("UNAUTHENTICATED", "no key was sent; send `authorization: Bearer <key>`")
                raise Refusal("PERMISSION_DENIED", f"{identity.subject} may not call {handler_call_details.method}")
        except Refusal as refusal:
            return self._refuse(handler_call_details.method, refusal)
        reason = CONTROLS.sub(" ", unquote(metadata.get("kowabunga-reason", "")))
        CALLER.set(Caller(identity, reason[:MAX_REASON_CHARS]))
        return await continuation(handler_call_details)


def _refused(_: str, refusal: Refusal) -> Handler:
    async def refuse(_: Any, __: Context) -> None:
        raise refusal

    return stream_handler(refuse)


async def abort(context: Context, refusal: Refusal) -> None:
    """Ends a call with a refusal, whose texts are cut to what fits."""
    code, message = grpc.StatusCode[refusal.status], _truncated(refusal.message, MAX_MESSAGE_BYTES)
    metadata = dict(_first_that_fit(refusal.details.items()))
    violations = _first_that_fit((violation.field, violation.description) for violation in refusal.violations)
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain="kowabunga", metadata=metadata))
    if violations:
        request = error_details_pb2.BadRequest()
        for field, description in violations:
            request.field_violations.add(field=field, description=description)
        status.details.add().Pack(request)
    await context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))


def as_refusal(method: str, error: Exception) -> Refusal:
    """Returns a refusal for any error. One that is not a Refusal is a bug: only the log has its details."""
    if isinstance(error, Refusal):
        return error
    log.error("call.failed", method=method, exc_info=error)
    return Refusal("INTERNAL", f"{method} failed; the server's log says why")


def _first_that_fit(items: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns as many entries from the first on as fit into MAX_DETAILS_BYTES; at least one."""
    kept: list[tuple[str, str]] = []
    budget = MAX_DETAILS_BYTES
    for name, text in items:
        item = _truncated(name, MAX_DETAIL_TEXT_BYTES), _truncated(text, MAX_DETAIL_TEXT_BYTES)
        budget -= sum(len(part.encode()) for part in item) + ENTRY_OVERHEAD_BYTES
        if kept and budget < 0:
            break
        kept.append(item)
    return kept


def _truncated(text: str, budget: int) -> str:
    """Cuts a text to so many bytes when it is percent-encoded."""
    for index, character in enumerate(text):
        budget -= 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if budget < 0:
            return f"{text[: index - 3]}..."
    return text


def stream_handler(serve: Callable[[Any, Any], Awaitable[None]]) -> Handler:
    """Returns a bidirectional stream handler, which fits every method and reads bytes.

    A Refusal that `serve` raises ends the call.
    """

    async def serve_or_refuse(requests: Any, context: Context) -> None:
        try:
            await serve(requests, context)
        except Refusal as refusal:
            await abort(context, refusal)

    return grpc.stream_stream_rpc_method_handler(serve_or_refuse, None, SERIALIZE)
