"""Desired state: an agent's slice, each object parsed to a value by the agent's kinds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Generic, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused

Identity = tuple[str, int, bool, str]
"""The common fields of objects: id, generation, whether it is gone, and name."""


@dataclass(frozen=True, slots=True)
class DesiredObject:
    """The common fields of objects; each kind adds its own."""

    id: str
    generation: int
    gone: bool  # to be removed from the host
    name: str

    @property
    def references(self) -> tuple[str, ...]:
        """The ids of the objects that it uses."""
        return ()


D = TypeVar("D", bound=DesiredObject)
Value = TypeVar("Value", bound=DesiredObject)


class Kind(Generic[D]):
    """An agent's code for one kind of resource."""

    message: type[Message]  # of the contract
    value: type[D]
    is_node = False  # whether it is the record that the agent belongs to (at most one)

    def parse(self, identity: Identity, sent: Any) -> D:
        """Parses a resource. Raises ValueError with the problem when it is invalid."""
        return self.value(*identity)


K = TypeVar("K", bound=Kind[Any])


class MissingReference(Exception):
    """A reference to an object that is not in the slice, or is being deleted: `volume 6f...`."""


class Desired:
    """The objects of a slice, by type and id. A type comes after those that it may use."""

    def __init__(self, objects: Mapping[type[DesiredObject], Mapping[str, DesiredObject]] | None = None) -> None:
        self._objects = objects or {}
        self.node: DesiredObject | None = None  # the record that the agent belongs to
        self._referring: dict[str, list[DesiredObject]] = {}
        for user in self:
            for id_ in user.references:
                self._referring.setdefault(id_, []).append(user)

    def __iter__(self) -> Iterator[DesiredObject]:
        for objects in self._objects.values():
            yield from objects.values()

    def of(self, value: type[Value]) -> Mapping[str, Value]:
        """The objects of a type, by id."""
        return self._objects.get(value, {})  # type: ignore[return-value]

    def referring(self, id_: str) -> list[DesiredObject]:
        """The objects that refer to an object, also those being deleted."""
        return self._referring.get(id_, [])

    def users(self, id_: str) -> list[DesiredObject]:
        """The objects that refer to an object and are not being deleted."""
        return [user for user in self.referring(id_) if not user.gone]

    def get(self, value: type[Value], id_: str, noun: str) -> Value:
        """Returns an object. Raises MissingReference when it does not exist or is being deleted."""
        found = self.of(value).get(id_)
        if found is None:
            raise MissingReference(f"{noun} {id_}")
        if found.gone:
            raise MissingReference(f"{noun} {id_}, which is being deleted")
        return found


class Kinds(Generic[K]):
    """The kinds that an agent knows, each after those that it may refer to."""

    def __init__(self, *kinds: K) -> None:
        self._by_message = {kind.message: kind for kind in kinds}
        self._by_value = {kind.value: kind for kind in kinds}

    def __iter__(self) -> Iterator[K]:
        return iter(self._by_value.values())

    def of(self, wanted: DesiredObject) -> K:
        """The kind of an object."""
        return self._by_value[type(wanted)]

    def parse(self, slice_: Mapping[str, fleet_pb2.Object]) -> Desired:
        """Parses a slice. Raises Refused, naming the object, when one is invalid.

        A reference to an object outside of the slice is valid: that may come with a later change.
        """
        objects: dict[type[DesiredObject], dict[str, DesiredObject]] = {kind.value: {} for kind in self}
        node = None
        for key, sent in slice_.items():
            noun = resources.noun_of(sent.resource) or "unknown kind"
            try:
                resource = resources.unpack(sent.resource)
                kind = self._by_message.get(type(resource))
                if kind is None:
                    raise ValueError("this agent knows no such kind; a newer one may")
                wanted = objects[kind.value][key] = kind.parse(_identity(key, sent, resource), resource)
                if kind.is_node and node:
                    raise ValueError(f"there is another, {node.id}; an agent belongs to one")
                node = wanted if kind.is_node else node
            except ValueError as error:
                raise Refused(f"{noun} {key}: {error}") from error
        desired = Desired(objects)
        desired.node = node
        return desired


def parse_network(text: str) -> IPv4Network:
    """Raises ValueError with the problem as a message."""
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"cidr {text!r} is not a network: {error}") from error


def parse_address(field: str, text: str) -> IPv4Address:
    """Raises ValueError with the problem as a message."""
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise ValueError(f"{field} {text!r} is not an IPv4 address") from error


def _identity(key: str, sent: fleet_pb2.Object, resource: Any) -> Identity:
    if sent.id != str(UUID(sent.id)):
        raise ValueError(f"id {sent.id!r} is not written as ids are")
    if sent.id != key:
        raise ValueError(f"is sent as {key}")
    return sent.id, sent.generation, sent.gone, getattr(resource, "name", "")
