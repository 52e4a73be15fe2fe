"""Parsing a slice: what every agent asks of what it is sent before it takes it."""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar
from uuid import UUID

from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused

T = TypeVar("T")
Made = tuple[str, int, bool]
"""What every object has: id, generation, and whether it is gone."""


def parse_each(slice_: Mapping[str, fleet_pb2.Object], parse: Callable[[Made, Message], T]) -> Iterator[tuple[str, T]]:
    """The objects by id, each as `parse` has it from its resource.

    Raises Refused, naming the object, when `parse` raises ValueError.
    """
    for key, sent in slice_.items():
        kind = resources.noun_of(sent.resource) or "unknown kind"
        try:
            yield key, parse(_made(key, sent), resources.unpack(sent.resource))
        except ValueError as why:
            raise Refused(f"{kind} {key}: {why}") from why


def the_one(kind: str, nodes: Mapping[str, T]) -> T | None:
    """The node that the agent serves, if any. Raises Refused when there are several."""
    if len(nodes) > 1:
        first, second, *_ = nodes
        raise Refused(f"{kind} {second}: there is another, {first}; an agent belongs to one")
    return next(iter(nodes.values()), None)


def network(text: str) -> IPv4Network:
    """Raises ValueError in words."""
    try:
        return IPv4Network(text)
    except ValueError as why:
        raise ValueError(f"cidr {text!r} is not a network: {why}") from why


def address(what: str, text: str) -> IPv4Address:
    """Raises ValueError in words."""
    try:
        return IPv4Address(text)
    except ValueError as why:
        raise ValueError(f"{what} {text!r} is not an IPv4 address") from why


def _made(key: str, sent: fleet_pb2.Object) -> Made:
    if sent.id != str(UUID(sent.id)):
        raise ValueError(f"id {sent.id!r} is not written as ids are")
    if sent.id != key:
        raise ValueError(f"is sent as {key}")
    return sent.id, sent.generation, sent.gone
