"""Watches: all resources of a revision, then the changes; a slow reader gets only the latest of each resource."""

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
    """Yields responses for ever: with a revision the changes after it, without one all resources first.

    Raises Refusal REVISION_COMPACTED when the log starts after the revision or ends before it. Only the latest change
    of each resource is kept for a reader, so one that stops reading costs no more memory than the set.
    """
    view = reader.view
    if revision and revision < view.oldest:
        text = f"revision {revision} is older than the log, which starts at {view.oldest}; watch without a revision"
        raise Refusal("REVISION_COMPACTED", text)
    if revision > view.revision:
        text = f"revision {revision} has not been yet, only {view.revision}: was the database restored? watch without"
        raise Refusal("REVISION_COMPACTED", text)
    # By id: the revision of the last change, and the resource since then (None: removed).
    pending: dict[str, tuple[int, Message | None]] = {}
    woken = asyncio.Event()

    def collect(changed_at: int, transitions: list[Transition]) -> None:
        for transition in transitions:
            if transition.kind == kind.name:
                pending.pop(transition.id, None)  # moved to the end: the latest change comes last
                pending[transition.id] = changed_at, transition.after
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
            for id_, (changed_at, resource) in batch:
                synced = changed_at
                if resource is not None and reader.scope.sees(kind.name, resource) and matches(resource):
                    shown.add(id_)
                    yield response(change=meta_pb2.CHANGE_PUT, revision=changed_at, **{kind.noun: resource})
                elif revision or id_ in shown:  # an earlier watch may have shown it
                    shown.discard(id_)
                    yield response(change=meta_pb2.CHANGE_REMOVED, revision=changed_at, id=id_)
            yield response(change=meta_pb2.CHANGE_SYNCED, revision=synced)
            await woken.wait()
            woken.clear()
    finally:
        stop()
