"""Which resources a caller sees: ScopedView is what List, Get, Watch, verbs, consoles and waiting read from."""

from collections.abc import Iterator

from google.protobuf.message import Message

from kahuna.security.identity import Identity
from kahuna.store.view import View


class Scope:
    """Which resources a caller sees: all of them. What is not seen is answered like what does not exist."""

    def sees(self, kind: str, resource: Message) -> bool:
        """Whether the caller may know of a resource."""
        return True


EVERYTHING = Scope()
"""What the platform's owner sees, and what Kahuna's own rules and timers do."""


def scope_of(identity: Identity) -> Scope:
    """What an identity sees. Whom a method does not let in never gets here; so far that leaves the platform's owner."""
    return EVERYTHING


class ScopedView:
    """The view as one caller sees it."""

    def __init__(self, view: View, scope: Scope) -> None:
        self.view, self.scope = view, scope

    def find(self, kind: str, id_: str) -> Message | None:
        """A resource, or nothing."""
        found = self.view.find(kind, id_)
        return found if found is not None and self.scope.sees(kind, found) else None

    def all(self, kind: str) -> Iterator[Message]:
        """The resources of a kind, by id."""
        return (resource for resource in self.view.all(kind) if self.scope.sees(kind, resource))
