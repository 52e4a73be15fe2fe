"""The identity of a caller: found by credential, allowed to call methods, and seeing resources."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from kahuna.domain.errors import Refusal
from kahuna.security.keys import KeyHasher, prefix_of
from kahuna.store.view import Transition, View
from kowa.v2 import agent_token_pb2, options_pb2


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `agent` and `token`, the id of the agent token, are set for agents only."""

    subject: str
    role: options_pb2.Role
    agent: str = ""
    token: str = ""


ANONYMOUS = Identity("", options_pb2.ROLE_PUBLIC)
ADMIN = Identity("admin", options_pb2.ROLE_SUPER_ADMIN)
_PARSE = agent_token_pb2.AgentToken.FromString


class Identities:
    """Finds the identity of a credential by its prefix, so that the cost does not grow with the number of keys."""

    def __init__(self, view: View, hasher: KeyHasher, admin_keys: Mapping[str, bytes]) -> None:
        self._hasher = hasher
        self._admin_keys = dict(admin_keys)
        self._view = view
        self._token_ids = {_PARSE(entry.data).prefix: id_ for id_, entry in view.entries("AgentToken").items()}
        view.follow(self._follow)

    def identify(self, authorization: str) -> Identity:
        """Returns the identity of an `authorization` header. Raises Refusal UNAUTHENTICATED for an unknown key."""
        if not authorization:
            return ANONYMOUS
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal("UNAUTHENTICATED", "the authorization header must read `Bearer <key>`")
        prefix = prefix_of(key)
        if prefix in self._admin_keys and self._hasher.matches(key, self._admin_keys[prefix]):
            return ADMIN
        entry = self._view.entries("AgentToken").get(self._token_ids.get(prefix, ""))
        if entry is not None and self._hasher.matches(key, entry.secret):
            token = _PARSE(entry.data)
            if not token.meta.HasField("delete_time"):
                return Identity(f"agent:{token.agent}", options_pb2.ROLE_AGENT, token.agent, token.meta.id)
        raise Refusal("UNAUTHENTICATED", "the key is unknown or has been revoked; use one that is valid")

    def _follow(self, _: int, transitions: list[Transition]) -> None:
        for transition in transitions:
            if isinstance(transition.after, agent_token_pb2.AgentToken):
                self._token_ids[transition.after.prefix] = transition.id
            elif isinstance(transition.before, agent_token_pb2.AgentToken):
                self._token_ids.pop(transition.before.prefix, None)


def is_allowed(identity: Identity, access: options_pb2.Access) -> bool:
    """Whether an identity may call a method with this option. A method without one is denied to all."""
    if access.role == options_pb2.ROLE_PUBLIC:
        return True
    if access.role == options_pb2.ROLE_AGENT or identity.role == options_pb2.ROLE_AGENT:
        return access.role == identity.role
    return bool(access.role) and identity.role >= access.role


class Scope:
    """The resources that a caller sees: so far all. Others are answered as if they did not exist."""

    def sees(self, kind: str, resource: Message) -> bool:
        """Whether the caller may know of a resource."""
        return True


EVERYTHING = Scope()
"""The scope of the platform's owner, and of Kahuna's own rules and timers."""


def scope_of(identity: Identity) -> Scope:
    """Returns the scope of an identity. So far only the platform's owner gets here: others are denied before."""
    return EVERYTHING


class ScopedView:
    """The view as one caller sees it. List, Get, Watch, verbs, consoles and waiting read from it."""

    def __init__(self, view: View, scope: Scope) -> None:
        self.view, self.scope = view, scope

    def find(self, kind: str, id_: str) -> Message | None:
        """Returns a resource, or None."""
        found = self.view.find(kind, id_)
        return found if found is not None and self.scope.sees(kind, found) else None

    def all(self, kind: str) -> Iterator[Message]:
        """Returns the resources of a kind, sorted by id."""
        return (resource for resource in self.view.all(kind) if self.scope.sees(kind, resource))
