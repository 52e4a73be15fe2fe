"""Which resources a caller sees: ScopedView is what List, Get, Watch, verbs, consoles and waiting read from."""

from collections.abc import Iterator
from typing import Protocol

from google.protobuf.message import Message

from kahuna.security.identity import Identity
from kahuna.store.view import View


class Scope(Protocol):
    """Which resources a caller sees. What is not seen is answered like what does not exist."""

    def sees(self, kind: str, resource: Message) -> bool:
        """Whether the caller may know of a resource."""


class Everything:
    """The scope of the platform's owner, and of Kahuna's own rules and timers."""

    def sees(self, kind: str, resource: Message) -> bool:
        """All of it."""
        return True


EVERYTHING: Scope = Everything()


def scope_of(identity: Identity) -> Scope:
    """What an identity sees. Whom a method does not let in never gets here; so far that leaves the platform's owner."""
    return EVERYTHING


class ScopedView:
    """The view as one caller sees it."""

    def __init__(self, view: View, scope: Scope) -> None:
        self.view = view
        self.scope = scope

    @property
    def revision(self) -> int:
        """The revision it stands at."""
        return self.view.revision

    def sees(self, kind: str, resource: Message) -> bool:
        """Whether the caller may know of a resource."""
        return self.scope.sees(kind, resource)

    def find(self, kind: str, id_: str) -> Message | None:
        """A resource, or nothing."""
        found = self.view.find(kind, id_)
        return found if found is not None and self.sees(kind, found) else None

    def all(self, kind: str) -> Iterator[Message]:
        """The resources of a kind, by id."""
        return (resource for resource in self.view.all(kind) if self.sees(kind, resource))
