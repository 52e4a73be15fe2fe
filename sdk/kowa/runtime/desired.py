"""Desired state: the objects of an agent's slice, each parsed to a value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

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


Value = TypeVar("Value", bound=DesiredObject)


class MissingReference(Exception):
    """A reference to an object that is not in the slice, or is being deleted: `volume 6f...`."""


class Desired:
    """The objects of a slice, by type and id. A type comes after those that it may use."""

    def __init__(self, objects: Mapping[type[DesiredObject], Mapping[str, DesiredObject]] | None = None) -> None:
        self._objects = objects or {}
        self.node: DesiredObject | None = None  # the record that the agent belongs to
        self.by_id: Mapping[str, DesiredObject] = {wanted.id: wanted for wanted in self}
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

    def used_by(self, wanted: DesiredObject) -> frozenset[str]:
        """The ids of all objects that an object uses, also through others."""
        found: set[str] = set()
        left = list(wanted.references)
        while left:
            used = self.by_id.get(left.pop())
            if used is not None and used.id not in found:
                found.add(used.id)
                left += used.references
        return frozenset(found)

    def get(self, value: type[Value], id_: str, noun: str) -> Value:
        """Returns an object. Raises MissingReference when it does not exist or is being deleted."""
        found = self.of(value).get(id_)
        if found is None:
            raise MissingReference(f"{noun} {id_}")
        if found.gone:
            raise MissingReference(f"{noun} {id_}, which is being deleted")
        return found


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
