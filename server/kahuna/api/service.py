"""The standard methods, once for all resources. A resource's own file holds only what is its own."""

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, cast

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from sqlmodel import col, select

from kahuna.api.access import CALLER
from kahuna.api.query import matcher, page, question, sorter
from kahuna.api.watch import follow
from kahuna.domain.changes import apply_mask, check_immutable, clear_output_only, fields_of_mask
from kahuna.domain.errors import Refusal, not_found
from kahuna.domain.validation import check_resource, set_defaults
from kahuna.relay import Relays
from kahuna.security.keys import Sealer
from kahuna.store import commands, operations
from kahuna.store.database import Store
from kahuna.store.operations import Cause
from kahuna.store.request import Request
from kahuna.store.resource import CONTRACT, message_class, meta
from kahuna.store.transaction import Transaction, referring_columns
from kowa import contract
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import meta_pb2, operation_pb2

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
OPERATION_HEADER = "kowabunga-operation"
# How many children a refusal names.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Platform:
    """What services stand on."""

    store: Store
    sealer: Sealer
    relays: Relays


def cause_of(method: contract.Method) -> Cause:
    """Who calls the method now, and why."""
    caller = CALLER.get()
    return Cause(method.name, caller.identity.subject, caller.reason)


class StandardMethods:
    """List, Get, Create, Update, Delete, Watch and the verbs of one kind. Verbs are methods named after themselves."""

    kind: ClassVar[str]
    also_when_marked: ClassVar[frozenset[str]] = frozenset()
    """The verbs that a resource marked for deletion takes, too."""

    def __init__(self, platform: Platform) -> None:
        self.store, self.sealer, self.relays = platform.store, platform.sealer, platform.relays
        self.described = CONTRACT.kinds[self.kind]
        self.message = message_class(self.kind)

    # What a resource may say of its own, all in the transaction and before any side effect.

    def admit(self, tx: Transaction, resource: Any) -> None:
        """Completes a new resource, or refuses it."""

    def added(self, tx: Transaction, resource: Any) -> None:
        """Does what follows from a resource that is now there."""

    def amend(self, tx: Transaction, before: Any, after: Any) -> None:
        """Completes a changed resource, or refuses the change."""

    def release(self, tx: Transaction, resource: Any) -> None:
        """Refuses to mark a resource for deletion that is still needed."""

    def sweep(self, tx: Transaction, id_: str) -> None:
        """Takes out what nothing holds any more."""
        operations.sweep(tx, self.kind, id_)

    def insert(self, tx: Transaction, resource: Any) -> Message:
        """Adds the row. Its answer is the caller's."""
        return tx.add(self.kind, resource)

    # The standard methods.

    async def list(self, request: Any, context: Context, method: contract.Method) -> Message:
        """A page of the view at one revision."""
        view = self.store.view
        wanted = matcher(self.message, request.filter)
        order = sorter(self.message, request.order_by)
        found = (resource for resource in view.all(self.kind) if wanted(resource))
        asked = question(self.message, request.filter, request.order_by)
        part, token, total = page(found, order, request.page_size, request.page_token, asked)
        response = CONTRACT.stub(method.response)
        nouns = {self.described.nouns: part}
        return response(**nouns, next_page_token=token, total_size=total, revision=view.revision)

    async def get(self, request: Any, context: Context, method: contract.Method) -> Message:
        """One resource of the view."""
        found = self.store.view.find(self.kind, request.id)
        if found is None:
            raise not_found(self.described.command, request.id)
        return found

    async def create(self, request: Any, context: Context, method: contract.Method) -> Message:
        """A new resource."""
        resource = getattr(request, self.described.noun)
        clear_output_only(resource)
        set_defaults(resource)
        resource.ClearField("meta")
        check_resource(resource)

        def work(tx: Transaction, cause: Cause) -> Message:
            # A transaction may be run anew, and what the last run has filled in is not the caller's wish.
            wanted = type(resource)()
            wanted.CopyFrom(resource)
            self._lean(tx, wanted)
            self.admit(tx, wanted)
            answer = self.insert(tx, wanted)
            self.added(tx, answer)
            return answer

        return await self._mutate(request, context, method, work)

    async def update(self, request: Any, context: Context, method: contract.Method) -> Message:
        """A changed resource: the masked fields, or those that are set."""
        sent = getattr(request, self.described.noun)
        fields = fields_of_mask(self.described, sent, request.update_mask.paths)

        def work(tx: Transaction, cause: Cause) -> Message:
            before = self._living(tx, meta(sent).id, meta(sent).etag)
            after = type(before)()
            after.CopyFrom(before)
            apply_mask(after, sent, fields)
            set_defaults(after)
            check_immutable(self.described, before, after)
            check_resource(after, before)
            self._lean(tx, after, before)
            self.amend(tx, before, after)
            return tx.put(self.kind, after)

        return await self._mutate(request, context, method, work)

    async def delete(self, request: Any, context: Context, method: contract.Method) -> Message:
        """Marks a resource; the row goes when its agents report it gone. Marking it again changes nothing."""

        def work(tx: Transaction, cause: Cause) -> Message:
            resource = tx.get(self.kind, request.id)
            self._check_etag(resource, request.etag)
            if not meta(resource).HasField("delete_time"):
                self.release(tx, resource)
                self._check_children(tx, resource)
            return tx.mark(self.kind, request.id)

        await self._mutate(request, context, method, work, sweep=True)
        return Empty()

    def watch(self, request: Any, context: Context, method: contract.Method) -> AsyncIterator[Message]:
        """The set at one revision, then the changes."""
        wanted = matcher(self.message, request.filter)
        response = CONTRACT.stub(method.response)
        return follow(self.store.view, self.described, response, wanted, request.revision)

    async def verb(self, request: Any, context: Context, method: contract.Method) -> Message:
        """A verb of the kind's own: a change of desired state under a name."""
        change = cast(Callable[[Transaction, Any, Any], None], getattr(self, method.verb.replace("-", "_")))

        def work(tx: Transaction, cause: Cause) -> Message:
            marked = method.verb in self.also_when_marked
            resource = tx.get(self.kind, request.id) if marked else self._living(tx, request.id, "")
            given_up = meta(resource).state == meta_pb2.STATE_ERROR
            change(tx, resource, request)
            changed = tx.put(self.kind, resource)
            stays = meta(changed).generation == meta(resource).generation
            return tx.insist(self.kind, request.id) if given_up and stays else changed

        return await self._mutate(request, context, method, work, sweep=method.verb in self.also_when_marked)

    async def command(
        self, request: Any, context: Context, method: contract.Method, command: fleet_pb2.Command
    ) -> Message:
        """Something to be done once by the resource's agent, which changes no desired state."""

        def begin(tx: Transaction, cause: Cause, target: Message) -> operation_pb2.Operation:
            return commands.ask(tx, cause, self.kind, target, command)

        def work(tx: Transaction, cause: Cause) -> Message:
            return self._living(tx, request.id, "")

        return await self._mutate(request, context, method, work, begin=begin)

    # How a mutation runs.

    async def _mutate(
        self,
        request: Any,
        context: Context,
        method: contract.Method,
        work: Callable[[Transaction, Cause], Message],
        *,
        sweep: bool = False,
        begin: Callable[[Transaction, Cause, Message], operation_pb2.Operation] | None = None,
    ) -> Message:
        cause = cause_of(method)

        def transact(tx: Transaction) -> tuple[Message, str, Transaction]:
            replayed = self._replay(tx, cause, method, request)
            if replayed is not None:
                return *replayed, tx
            answer = work(tx, cause)
            if request.validate_only:
                return answer, "", tx
            operation = begin(tx, cause, answer) if begin else operations.begin(tx, cause, self.kind, answer)
            self._remember(tx, cause, request, meta(answer).id, operation.meta.id)
            if sweep:
                self.sweep(tx, meta(answer).id)
            return answer, operation.meta.id, tx

        run = self.store.plan if request.validate_only else self.store.run
        answer, operation, tx = await run(transact)
        meta(answer).revision = tx.revision or meta(answer).revision
        # What is answered once more may have been committed unheard.
        await self.store.view.reached(meta(answer).revision)
        if operation:
            await context.send_initial_metadata(((OPERATION_HEADER, operation),))
        return answer

    def _replay(
        self, tx: Transaction, cause: Cause, method: contract.Method, request: Any
    ) -> tuple[Message, str] | None:
        if not getattr(request, "request_id", "") or request.validate_only:
            return None
        digest = _digest(request)
        key = {"caller": cause.caller, "method": cause.method, "request_id": request.request_id}
        if tx.insert_new(Request, **key, digest=digest, target="", operation="", time=tx.now):
            return None
        first = tx.session.get_one(Request, tuple(key.values()))
        if first.digest != digest:
            raise Refusal(
                "REQUEST_ID_REUSED", f"request_id {request.request_id} was used for another request; draw a new one"
            )
        # What was deleted may be gone. Its operation, written with the deletion, outlives the request's record.
        kind, id_ = ("Operation", first.operation) if method.verb == "delete" else (self.kind, first.target)
        found = tx.find(kind, id_)
        if found is None:
            raise not_found(CONTRACT.kinds[kind].command, id_)
        return found, first.operation

    def _remember(self, tx: Transaction, cause: Cause, request: Any, target: str, operation: str) -> None:
        if getattr(request, "request_id", ""):
            first = tx.session.get_one(Request, (cause.caller, cause.method, request.request_id))
            first.target, first.operation = target, operation
            tx.session.flush()

    def _living(self, tx: Transaction, id_: str, etag: str) -> Message:
        resource = tx.get(self.kind, id_)
        if meta(resource).HasField("delete_time"):
            raise Refusal("DELETING", f"{self.described.command} {id_} is being deleted; it can't be changed any more")
        self._check_etag(resource, etag)
        return resource

    def _check_etag(self, resource: Message, etag: str) -> None:
        current = meta(resource).etag
        if etag and etag != current:
            raise Refusal(
                "ETAG_MISMATCH", f"the etag is {current}, not {etag}: it was changed meanwhile; read it and try again"
            )

    def _lean(self, tx: Transaction, resource: Message, before: Message | None = None) -> None:
        """Holds what a resource names: it is there and stays."""
        for field in self.described.message.fields.values():
            if not field.ref or field.output_only or field.repeated:
                continue
            id_ = getattr(resource, field.name)
            if id_ and (before is None or id_ != getattr(before, field.name)):
                tx.lean_on(field.name, field.ref, id_)

    def _check_children(self, tx: Transaction, resource: Message) -> None:
        """Raises Refusal HAS_CHILDREN while something unmarked names the resource."""
        said: list[str] = []
        free: list[str] = []
        for table, column in referring_columns(self.kind):
            if (table.kind, column.removesuffix("_id")) in operations.BELONGINGS:
                continue
            living = select(table).where(getattr(table, column) == meta(resource).id, col(table.delete_time).is_(None))
            children = tx.session.exec(living.limit(NAMED + 1)).all()
            if children:
                kind, names = CONTRACT.kinds[table.kind], [getattr(child, "name", "") for child in children]
                said.append(_children(kind, names))
                named_in = kind.message.fields[column.removesuffix("_id")]
                if not (named_in.immutable or named_in.output_only):
                    free += names[:NAMED]
        if said:
            name = getattr(resource, "name", meta(resource).id)
            remedy = f"take it from {', '.join(free)} or delete them first" if free else "delete them first"
            raise Refusal("HAS_CHILDREN", f"{self.described.command} {name} has {', '.join(said)}; {remedy}")


def _children(kind: contract.Kind, names: list[str]) -> str:
    """How many children, and the first of them."""
    if len(names) > NAMED:
        return f"more than {NAMED} {kind.plural}: {', '.join(names[:NAMED])} ..."
    return f"{len(names)} {kind.plural if len(names) > 1 else kind.command}: {', '.join(names)}"


def _digest(request: Message) -> bytes:
    """What must be equal for a repeat to be one."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
