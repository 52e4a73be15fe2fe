"""How a mutation runs: once for each request id, in one transaction with its effect, or not at all for a plan."""

import hashlib
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import update

from kahuna.domain.changes import fields_of_mask
from kahuna.domain.errors import Refusal, not_found
from kahuna.kinds.kind import Kind, Outcome
from kahuna.kinds.tracking import Cause
from kahuna.kinds.verbs import Form, form_of
from kahuna.store.request import Request
from kahuna.store.resource import CONTRACT, meta
from kahuna.store.transaction import Transaction
from kowa import contract

Answer = tuple[Message, str]
"""A resource, and the id of the operation that follows it."""


async def mutate(kind: Kind[Any], method: contract.Method, cause: Cause, request: Any) -> Answer:
    """Carries out a method that changes something, and answers when the caller can read what it has changed."""

    def transact(tx: Transaction) -> tuple[Answer, Transaction]:
        replayed = _replay(tx, cause, kind, method, request)
        if replayed is not None:
            return replayed, tx
        outcome = _apply(tx, kind, method, cause, request)
        operation = outcome.operation.meta.id if outcome.operation is not None else ""
        _remember(tx, cause, request, meta(outcome.resource).id, operation)
        return (outcome.resource, operation), tx

    store = kind.platform.store
    if request.validate_only:
        (planned, _), _ = await store.plan(transact)
        kind.redact_plan(planned)
        return planned, ""
    (answer, operation), tx = await store.run(transact)
    meta(answer).revision = tx.revision or meta(answer).revision
    # A replayed answer may be of a commit that the view has not applied yet.
    await store.view.wait_for(meta(answer).revision)
    return answer, operation


def _apply(tx: Transaction, kind: Kind[Any], method: contract.Method, cause: Cause, request: Any) -> Outcome[Any]:
    match method.verb:
        case "create":
            return kind.create(tx, cause, getattr(request, kind.described.noun))
        case "update":
            sent = getattr(request, kind.described.noun)
            paths = fields_of_mask(kind.described, sent, request.update_mask.paths)
            return kind.update(tx, cause, sent, paths)
        case "delete":
            return kind.delete(tx, cause, request.id, request.etag)
        case verb if form_of(kind.verb(verb)) is Form.COMMAND:
            return kind.command(tx, cause, verb, request.id, request)
        case verb:
            return kind.change(tx, cause, verb, request.id, request)


def _replay(tx: Transaction, cause: Cause, kind: Kind[Any], method: contract.Method, request: Any) -> Answer | None:
    """The answer that the first request with this id had, if there was one."""
    if not request.request_id or request.validate_only:
        return None
    digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    key = {"caller": cause.caller, "method": cause.method, "request_id": request.request_id}
    if tx.insert_new(Request, **key, digest=digest, target="", operation="", time=tx.now):
        return None
    first = tx.session.get_one(Request, tuple(key.values()))
    if first.digest != digest:
        raise Refusal(
            "REQUEST_ID_REUSED", f"request_id {request.request_id} was used for another request; draw a new one"
        )
    # What was deleted may be gone. Its operation, written with the deletion, outlives the request's record.
    name, id_ = ("Operation", first.operation) if method.verb == "delete" else (kind.name, first.target)
    found = tx.find(name, id_)
    if found is None or not cause.scope.sees(name, found):
        raise not_found(CONTRACT.kinds[name].command, id_)
    return found, first.operation


def _remember(tx: Transaction, cause: Cause, request: Any, target: str, operation: str) -> None:
    if request.request_id and not request.validate_only:
        first = update(Request).filter_by(caller=cause.caller, method=cause.method, request_id=request.request_id)
        tx.session.execute(first.values(target=target, operation=operation))
