"""All resources in memory, fed by commits. API reads use it; transactions read the database."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf.message import Message

from kahuna.domain.reach import Ids, Link, Reader
from kahuna.store.resource import CONTRACT, changed_links, message_class, message_of, reference_readers

# A watch that is more changes behind has to start again.
MAX_TAIL_CHANGES = 100_000


class Entry(NamedTuple):
    """A serialised resource; `secret` never leaves the process."""

    data: bytes
    secret: bytes


def entry_of(kind: str, row: Any) -> Entry:
    """Returns the entry of a row (or of a tuple with the columns of Resource)."""
    return Entry(message_of(kind, row).SerializeToString(), row.secret)


class Change(NamedTuple):
    """One resource changed by one commit; without an entry it was removed."""

    revision: int
    kind: str
    id: str
    entry: Entry | None


class Commit(NamedTuple):
    """The changes of one transaction."""

    revision: int
    changes: tuple[Change, ...]


class Transition(NamedTuple):
    """A change as passed to followers: the resource before and after, and the references it added and dropped."""

    kind: str
    id: str
    before: Message | None
    after: Message | None
    added: Collection[Link] = ()
    dropped: Collection[Link] = ()


Follower = Callable[[int, list[Transition]], None]


class View(Reader):
    """All resources at one revision. Used from the event loop only.

    Commits may come out of order; they are applied in order.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.incarnation = ""
        self._objects: dict[str, dict[str, Entry]] = {kind: {} for kind in CONTRACT.kinds}
        # By kind and field: target id -> ids of the resources that name it.
        self._sources: dict[tuple[str, str], dict[str, set[str]]] = {
            (kind.name, reference.name): {} for kind in CONTRACT.kinds.values() for reference in kind.message.references
        }
        self._tail: deque[Change] = deque(maxlen=MAX_TAIL_CHANGES)
        self._out_of_order: dict[int, Commit] = {}
        self._followers: list[Follower] = []
        self._next_commit = asyncio.Event()

    def load(self, incarnation: str, revision: int, resources: Iterable[Change], tail: Iterable[Change]) -> None:
        """Fills an empty view. `tail` is the end of the log, in order."""
        self.incarnation = incarnation
        for change in resources:
            self._put(change)
        self.revision = revision
        self._tail.extend(tail)

    @property
    def oldest(self) -> int:
        """The earliest revision since which all changes are in the tail."""
        if not self._tail:
            return self.revision
        first, full = self._tail[0].revision, len(self._tail) == self._tail.maxlen
        return first if full else first - 1  # a full tail may have lost some changes of its first commit

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Calls the follower at each commit from now on, in order. Returns a function that ends it."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def apply(self, commit: Commit) -> None:
        """Applies a commit, as soon as all before it are applied. A repeated one changes nothing."""
        if commit.revision <= self.revision:
            return
        self._out_of_order[commit.revision] = commit
        while (ready := self._out_of_order.pop(self.revision + 1, None)) is not None:
            transitions = [self._put(change) for change in ready.changes]
            # Without contents, which would all stay in memory.
            self._tail.extend(change._replace(entry=None) for change in ready.changes)
            self.revision = ready.revision
            for follower in tuple(self._followers):
                follower(ready.revision, transitions)
            self._next_commit.set()
            self._next_commit = asyncio.Event()

    async def wait_for(self, revision: int) -> None:
        """Waits until the view has the revision."""
        while self.revision < revision:
            await self._next_commit.wait()

    async def next_commit(self) -> None:
        """Waits for the next commit."""
        await self._next_commit.wait()

    def find(self, kind: str, id_: str) -> Message | None:
        """Returns a resource, or None."""
        entry = self._objects[kind].get(id_)
        return message_class(kind).FromString(entry.data) if entry else None

    def all(self, kind: str) -> Iterator[Message]:
        """Returns the resources of a kind, sorted by id."""
        parse = message_class(kind).FromString
        return (parse(entry.data) for _, entry in sorted(self._objects[kind].items()))

    def entries(self, kind: str) -> dict[str, Entry]:
        """Returns the serialised resources of a kind, by id."""
        return self._objects[kind]

    def targets(self, kind: str, field: str, sources: Ids) -> Ids:
        found = [resource for id_ in sources if (resource := self.find(kind, id_)) is not None]
        read = reference_readers(kind)[field]
        return {target for resource in found for target in read(resource) if target}

    def sources(self, kind: str, field: str, targets: Ids) -> Ids:
        sources = self._sources[kind, field]
        return {id_ for target in targets for id_ in sources.get(target, ())}

    def changes_since(self, kind: str, revision: int) -> list[Change]:
        """Returns the changes of a kind after a revision, in order, without entries."""
        return [change for change in self._tail if change.revision > revision and change.kind == kind]

    def _put(self, change: Change) -> Transition:
        before = self.find(change.kind, change.id)
        if change.entry:
            self._objects[change.kind][change.id] = change.entry
        else:
            self._objects[change.kind].pop(change.id, None)
        after = self.find(change.kind, change.id)
        added, dropped = changed_links(change.kind, change.id, before, after)
        for kind, field, source, target in dropped:
            sources = self._sources[kind, field]
            sources[target].remove(source)
            if not sources[target]:
                del sources[target]
        for kind, field, source, target in added:
            self._sources[kind, field].setdefault(target, set()).add(source)
        return Transition(change.kind, change.id, before, after, added, dropped)
