"""The methods of a kind as the wire calls them, once for all kinds: each returns its answer and knows no wire.

A change is made once for each request id, in one transaction with its effect; for `validate_only` not at all.
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
"""What is answered, and the id of the operation that follows it, if any."""
Unary = Callable[[Call, Any], Awaitable[Answer]]
Streaming = Callable[[Call, Any], AsyncIterator[Message]]


def unary(kind: Kind[Any], method: contract.Method) -> Unary:
    """How a method with one answer is carried out. Raises AssertionError when the kind does not serve it."""
    if method.verb in ("list", "get"):
        return partial(_list if method.verb == "list" else _get, kind, method)
    verb = None if method.verb in ("create", "update", "delete") else kind.verb(method.verb)
    if verb is None or form_of(verb) is not Form.CALL:
        return partial(_change, kind, method)

    async def carry_out(call: Call, request: Any) -> Answer:
        return await verb(call, request), ""

    return carry_out


def streaming(kind: Kind[Any], method: contract.Method) -> Streaming:
    """How a method with a stream of answers is carried out. Raises AssertionError when the kind does not serve it."""
    if method.verb == "watch":
        return partial(_watch, kind, method)
    return kind.verb(method.verb)


async def _list(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> Answer:
    """A page of the view at one revision."""
    part, token, total = page(kind.described.message, call.reader.all(kind.name), request)
    response = CONTRACT.stub(method.response)
    nouns = {kind.described.nouns: part}
    return response(**nouns, next_page_token=token, total_size=total, revision=call.reader.view.revision), ""


async def _get(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> Answer:
    """One resource of the view."""
    return kind.read(call, request.id), ""


def _watch(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> AsyncIterator[Message]:
    """The set at one revision, then the changes."""
    matches = matcher(kind.described.message, request.filter)
    return follow(call.reader, kind.described, CONTRACT.stub(method.response), matches, request.revision)


async def _change(kind: Kind[Any], method: contract.Method, call: Call, request: Any) -> Answer:
    """The resource as it is wanted now, once the caller can read it; nothing of one that is deleted."""

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
        # A replayed answer may be of a commit that the view has not applied yet.
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
    """The answer that the first request with this key had, if there was one."""
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    if tx.insert_new(Request, **key, digest=digest, target="", operation="", time=tx.now):
        return None
    first = tx.session.get_one(Request, tuple(key.values()))
    if first.digest != digest:
        raise Refusal(
            "REQUEST_ID_REUSED", f"request_id {request.request_id} was used for another request; choose a new one"
        )
    # What was deleted may be gone. Its operation, written with the deletion, outlives the request's record.
    name, id_ = ("Operation", first.operation) if method.verb == "delete" else (kind.name, first.target)
    found = tx.find(name, id_)
    if found is None or not cause.scope.sees(name, found):
        raise not_found(CONTRACT.kinds[name].command, id_)
    return found, first.operation
