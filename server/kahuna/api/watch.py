"""A watch: the set at one revision, then the changes, the latest of each resource when the reader is slow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from kahuna.domain.errors import Refusal
from kahuna.security.scope import ScopedView
from kahuna.store.resource import meta
from kahuna.store.view import Move
from kowa import contract
from kowa.v2 import meta_pb2

Event = tuple[int, str, Message | None]


async def follow(
    reader: ScopedView, kind: contract.Kind, response: Any, matches: Callable[[Message], bool], revision: int
) -> AsyncIterator[Message]:
    """Yields responses for ever. With a revision only what changed after it, else the whole set first.

    Raises Refusal REVISION_COMPACTED when the log does not reach back that far, or has not come that far. What is not
    yet read is kept once a resource, so a reader that stops costs no more than the set.
    """
    view = reader.view
    pending: dict[str, Event] = {}
    woken = asyncio.Event()

    def note(at: int, moves: list[Move]) -> None:
        for move in moves:
            if move.kind == kind.name:
                pending.pop(move.id, None)
                pending[move.id] = (at, move.id, move.after)
                woken.set()

    def wanted(resource: Message) -> bool:
        return reader.scope.sees(kind.name, resource) and matches(resource)

    def put(at: int, resource: Message) -> Message:
        event: Message = response(change=meta_pb2.CHANGE_PUT, revision=at, **{kind.noun: resource})
        return event

    def removed(at: int, id_: str) -> Message:
        event: Message = response(change=meta_pb2.CHANGE_REMOVED, revision=at, id=id_)
        return event

    if revision and revision < view.oldest:
        said = f"revision {revision} is older than the log, which starts at {view.oldest}; watch without a revision"
        raise Refusal("REVISION_COMPACTED", said)
    if revision > view.revision:
        said = f"revision {revision} has not been yet, only {view.revision}: was the database restored? watch without"
        raise Refusal("REVISION_COMPACTED", said)
    synced = view.revision
    first: list[Event]
    # Without knowing what an earlier watch sent, anything unwanted is reported removed.
    shown: set[str] | None = None
    if revision:
        ids = dict.fromkeys(change.id for change in view.changes_since(kind.name, revision))
        first = [(synced, id_, view.find(kind.name, id_)) for id_ in ids]
    else:
        first, shown = [(synced, meta(resource).id, resource) for resource in reader.all(kind.name)], set()
    stop = view.follow(note)
    try:
        batch = first
        while True:
            for at, id_, resource in batch:
                if resource is not None and wanted(resource):
                    if shown is not None:
                        shown.add(id_)
                    yield put(at, resource)
                elif shown is None or id_ in shown:
                    if shown is not None:
                        shown.discard(id_)
                    yield removed(at, id_)
            yield response(change=meta_pb2.CHANGE_SYNCED, revision=synced)
            await woken.wait()
            woken.clear()
            batch = list(pending.values())
            pending.clear()
            synced = batch[-1][0]
    finally:
        stop()
