"""The methods of one kind as the wire calls them, once for all kinds: each returns its answer and knows no wire."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from kahuna.api.mutations import Answer, mutate
from kahuna.api.query import matcher, page, query_digest, sorter
from kahuna.api.watch import follow
from kahuna.domain.errors import not_found
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.verbs import Form, form_of
from kahuna.store.resource import CONTRACT, message_class
from kowa import contract

Unary = Callable[[Call, Any], Awaitable[Answer]]
Streaming = Callable[[Call, Any], AsyncIterator[Message]]


class Methods:
    """What a kind's service serves."""

    def __init__(self, kind: Kind[Any]) -> None:
        self._kind = kind
        self._message = message_class(kind.name)

    def unary(self, method: contract.Method) -> Unary:
        """How a method with one answer is carried out. Raises AssertionError when the kind does not serve it."""
        if method.verb in ("list", "get"):
            read = self._list if method.verb == "list" else self._get

            async def answer(call: Call, request: Any) -> Answer:
                return read(method, call, request), ""

            return answer
        verb = None if method.verb in ("create", "update", "delete") else self._kind.verb(method.verb)
        if verb is None or form_of(verb) is not Form.CALL:

            async def change(call: Call, request: Any) -> Answer:
                resource, operation = await mutate(self._kind, method, call.cause, request)
                return (Empty() if method.verb == "delete" else resource), operation

            return change

        async def carry_out(call: Call, request: Any) -> Answer:
            return await verb(call, request), ""

        return carry_out

    def streaming(self, method: contract.Method) -> Streaming:
        """How a method with a stream of answers is carried out. Raises AssertionError when it is not served."""
        if method.verb == "watch":
            return lambda call, request: self._watch(method, call, request)
        return self._kind.verb(method.verb)

    def _list(self, method: contract.Method, call: Call, request: Any) -> Message:
        """A page of the view at one revision."""
        wanted = matcher(self._message, request.filter)
        order = sorter(self._message, request.order_by)
        found = (resource for resource in call.reader.all(self._kind.name) if wanted(resource))
        asked = query_digest(self._message, request.filter, request.order_by)
        part, token, total = page(found, order, request.page_size, request.page_token, asked)
        response = CONTRACT.stub(method.response)
        nouns = {self._kind.described.nouns: part}
        return response(**nouns, next_page_token=token, total_size=total, revision=call.reader.revision)

    def _get(self, method: contract.Method, call: Call, request: Any) -> Message:
        """One resource of the view."""
        found = call.reader.find(self._kind.name, request.id)
        if found is None:
            raise not_found(self._kind.described.command, request.id)
        return found

    def _watch(self, method: contract.Method, call: Call, request: Any) -> AsyncIterator[Message]:
        """The set at one revision, then the changes."""
        wanted = matcher(self._message, request.filter)
        return follow(call.reader, self._kind.described, CONTRACT.stub(method.response), wanted, request.revision)
