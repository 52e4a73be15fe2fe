"""Kinds: an agent's code for each kind of resource, and the view that plans are made from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import Desired, DesiredObject, Identity
from kowa.runtime.feed import Refused
from kowa.runtime.notes import Notes
from kowa.runtime.verdict import AS_WANTED, GONE, Verdict


class Observation(Protocol):
    """The state of a host at one time; each agent has its own."""

    @property
    def unseen(self) -> Mapping[str, str]:
        """The objects that can't be observed now, by id, each with the reason: they alone are not planned."""


D = TypeVar("D", bound=DesiredObject)
S = TypeVar("S")  # an agent's settings
A = TypeVar("A", bound=Observation)


@dataclass(frozen=True)
class View(Generic[S, A]):
    """The input of a plan: the desired and the actual state at one time."""

    kinds: "Kinds[S, A]"
    config: S
    desired: Desired
    actual: A
    notes: Notes = field(default_factory=Notes)
    now: float = 0.0  # seconds of the reconciler's clock
    by_kind: Mapping[type, Any] = field(default_factory=dict)  # results of the kinds' own `observe`


class Kind(Generic[D, S, A]):
    """One kind of object. The defaults are for a kind that needs nothing on the host."""

    message: type[Message]  # of the contract
    value: type[D]
    is_node = False  # whether it is the record that the agent belongs to (at most one)
    needs_host = True  # if not, it is reported as wanted also while the host can't be observed

    def parse(self, identity: Identity, sent: Any) -> D:
        """Parses a resource. Raises ValueError with the problem when it is invalid."""
        return self.value(*identity)

    async def observe(self, host: Any) -> Any:
        """Observes more of the host for this kind. The result is in `view.by_kind`, by the kind's `value` type."""
        return None

    def plan(self, view: View[S, A], wanted: D) -> Verdict:
        """The fewest steps from the actual to the desired state. Pure."""
        return GONE if wanted.gone else AS_WANTED

    def fill_status(self, view: View[S, A], wanted: D, resource: Any) -> None:
        """Fills the status of a resource to report with the observed state of its object."""

    def clear_unseen(self, resource: Any) -> None:
        """Clears fields of the last report that may have changed while the object can't be observed."""

    def strangers(self, view: View[S, A]) -> Iterable[str]:
        """Objects on the host that look like this kind's but are not in the slice."""
        return ()

    def update_notes(self, view: View[S, A]) -> None:
        """Updates the notes of this kind from an observation."""

    def deadlines(self, view: View[S, A]) -> Iterable[float]:
        """Times at which to plan again even if nothing changes, in seconds of the reconciler's clock."""
        return ()


class Kinds(Generic[S, A]):
    """The kinds that an agent knows, each after those that it may refer to."""

    def __init__(self, *kinds: Kind[Any, S, A]) -> None:
        self._by_message = {kind.message: kind for kind in kinds}
        self._by_value = {kind.value: kind for kind in kinds}

    def __iter__(self) -> Iterator[Kind[Any, S, A]]:
        return iter(self._by_value.values())

    def of(self, wanted: DesiredObject) -> Kind[Any, S, A]:
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


def _identity(key: str, sent: fleet_pb2.Object, resource: Any) -> Identity:
    if sent.id != str(UUID(sent.id)):
        raise ValueError(f"id {sent.id!r} is not written as ids are")
    if sent.id != key:
        raise ValueError(f"is sent as {key}")
    return sent.id, sent.generation, sent.gone, getattr(resource, "name", "")
