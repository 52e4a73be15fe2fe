"""A watch: the set at one revision, then the changes, the latest of each resource when the reader is slow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message

from kahuna.domain.errors import Refusal
from kahuna.security.identity import ScopedView
from kahuna.store.resource import meta
from kahuna.store.view import Transition
from kowa import contract
from kowa.v2 import meta_pb2


async def follow(
    reader: ScopedView, kind: contract.Kind, response: Any, matches: Callable[[Message], bool], revision: int
) -> AsyncIterator[Message]:
    """Yields responses for ever. With a revision only what changed after it, else the whole set first.

    Raises Refusal REVISION_COMPACTED when the log does not reach back that far, or has not come that far. What is not
    yet read is kept once a resource, so a reader that stops costs no more than the set.
    """
    view = reader.view
    if revision and revision < view.oldest:
        why = f"revision {revision} is older than the log, which starts at {view.oldest}; watch without a revision"
        raise Refusal("REVISION_COMPACTED", why)
    if revision > view.revision:
        why = f"revision {revision} has not been yet, only {view.revision}: was the database restored? watch without"
        raise Refusal("REVISION_COMPACTED", why)
    # By id: at which revision it changed last, and what it is since.
    pending: dict[str, tuple[int, Message | None]] = {}
    woken = asyncio.Event()

    def collect(at: int, transitions: list[Transition]) -> None:
        for transition in transitions:
            if transition.kind == kind.name:
                pending.pop(transition.id, None)  # the latest stands last
                pending[transition.id] = at, transition.after
                woken.set()

    synced = view.revision
    if revision:
        changed = dict.fromkeys(change.id for change in view.changes_since(kind.name, revision))
        pending |= {id_: (synced, view.find(kind.name, id_)) for id_ in changed}
    else:
        pending |= {meta(resource).id: (synced, resource) for resource in reader.all(kind.name)}
    shown: set[str] = set()
    stop = view.follow(collect)
    try:
        while True:
            batch = list(pending.items())
            pending.clear()
            for id_, (at, resource) in batch:
                synced = at
                if resource is not None and reader.scope.sees(kind.name, resource) and matches(resource):
                    shown.add(id_)
                    yield response(change=meta_pb2.CHANGE_PUT, revision=at, **{kind.noun: resource})
                elif revision or id_ in shown:  # nobody knows what an earlier watch has shown
                    shown.discard(id_)
                    yield response(change=meta_pb2.CHANGE_REMOVED, revision=at, id=id_)
            yield response(change=meta_pb2.CHANGE_SYNCED, revision=synced)
            await woken.wait()
            woken.clear()
    finally:
        stop()
