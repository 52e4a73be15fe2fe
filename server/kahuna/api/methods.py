"""The methods of all kinds, independent of gRPC: each takes a call with its request and returns its answer.

A change is made once for each request id, in one transaction with its effect; with `validate_only` it is not stored.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from sqlalchemy import update

from kahuna.api.query import matcher, page
from kahuna.api.watch import follow
from kahuna.domain.changes import fields_of_mask
from kahuna.domain.errors import Refusal, not_found
from kahuna.kinds.kind import Call, Kind, Outcome
from kahuna.kinds.tracking import Cause
from kahuna.kinds.verbs import Form, form_of
from kahuna.store.resource import CONTRACT, meta
from kahuna.store.tables import Request
from kahuna.store.transaction import Transaction
from kowa import contract

Answer = tuple[Message, str]
"""The response, and the id of its operation, if there is one."""
Unary = Callable[[Call, Any], Awaitable[Answer]]
Streaming = Callable[[Call, Any], AsyncIterator[Message]]


def unary(kind: Kind[Any], method: contract.Method) -> Unary:
    """Returns the implementation of a method with one response. Raises AssertionError when the kind lacks it."""
    if method.verb in ("list", "get"):
        return partial(_list if method.verb == "list" else _get, kind, method)
    verb = None if method.verb in ("create", "update", "delete") else kind.verb(method.verb)
    if verb is None or form_of(verb) is not Form.CALL:
        return partial(_change, kind, method)

    async def carry_out(call: Call, request: Any) -> Answer:
        return await verb(call, request), ""

    return carry_out


def streaming(kind: Kind[Any], method: contract.Method) -> Streaming:
    """Returns the implementation of a method with streamed responses. Raises AssertionError when the kind lacks it."""
    if method.verb == "watch":
        return partial(_watch, kind, method)
    return kind.verb(method.verb)


async def _list(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> Answer:
    """Returns a page of the view at one revision."""
    part, token, total = page(kind.described.message, call.reader.all(kind.name), request)
    response = CONTRACT.stub(method.response)
    nouns = {kind.described.nouns: part}
    return response(**nouns, next_page_token=token, total_size=total, revision=call.reader.view.revision), ""


async def _get(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> Answer:
    """Returns one resource of the view."""
    return kind.read(call, request.id), ""


def _watch(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> AsyncIterator[Message]:
    """Yields all resources of a revision, then the changes."""
    matches = matcher(kind.described.message, request.filter)
    return follow(call.reader, kind.described, CONTRACT.stub(method.response), matches, request.revision)


async def _change(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> Answer:
    """Makes a change. Returns the resource once the view has it; for a deletion, nothing."""

    def transact(tx: Transaction) -> tuple[Message, str, Transaction]:
        if key and (replayed := _replay(tx, call.cause, kind, method, request, key)):
            return *replayed, tx
        outcome = _apply(tx, call.cause, kind, method, request)
        operation = outcome.operation.meta.id if outcome.operation is not None else ""
        if key:
            first = update(Request).filter_by(**key)
            tx.session.execute(first.values(target=meta(outcome.resource).id, operation=operation))
        return outcome.resource, operation, tx

    store, operation = kind.platform.store, ""
    key: dict[str, str] = {}
    if request.request_id and not request.validate_only:
        key = {"caller": call.cause.caller, "method": method.name, "request_id": request.request_id}
    if request.validate_only:
        resource, _, _ = await store.plan(transact)
        kind.redact_plan(resource)
    else:
        resource, operation, tx = await store.run(transact)
        meta(resource).revision = tx.revision or meta(resource).revision
        # The commit of a replayed answer may not have been applied to the view yet.
        await store.view.wait_for(meta(resource).revision)
    return Empty() if method.verb == "delete" else resource, operation


def _apply(tx: Transaction, cause: Cause, kind: Kind[Any], method: contract.Method, request: Any) -> Outcome[Any]:
    match method.verb:
        case "create":
            return kind.create(tx, cause, getattr(request, kind.described.noun))
        case "update":
            sent = getattr(request, kind.described.noun)
            paths = fields_of_mask(kind.described, sent, request.update_mask.paths)
            return kind.update(tx, cause, sent, paths)
        case "delete":
            return kind.delete(tx, cause, request.id, request.etag)
        case verb:
            return kind.carry_out(tx, cause, verb, request.id, request)


def _replay(
    tx: Transaction, cause: Cause, kind: Kind[Any], method: contract.Method, request: Any, key: dict[str, str]
) -> Answer | None:
    """Returns the answer of the first request with this key; None if this is the first."""
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    if tx.insert_new(Request, **key, digest=digest, target="", operation="", time=tx.now):
        return None
    first = tx.session.get_one(Request, tuple(key.values()))
    if first.digest != digest:
        raise Refusal(
            "REQUEST_ID_REUSED", f"request_id {request.request_id} was used for another request; choose a new one"
        )
    # A deleted resource may be gone. Its operation, written with the deletion, outlives the request's record.
    name, id_ = ("Operation", first.operation) if method.verb == "delete" else (kind.name, first.target)
    found = tx.find(name, id_)
    if found is None or not cause.scope.sees(name, found):
        raise not_found(CONTRACT.kinds[name].command, id_)
    return found, first.operation
