"""Resources packed into messages between Kahuna and its agents: of any kind, by the full name of its message."""

from functools import cache
from importlib import import_module
from typing import cast

from google.protobuf import any_pb2
from google.protobuf.message import Message

from kowa.formats import snake


def pack(resource: Message) -> any_pb2.Any:
    """Packs a resource; equal ones have equal bytes."""
    packed = any_pb2.Any()
    packed.Pack(resource, deterministic=True)
    return packed


def unpack(packed: any_pb2.Any) -> Message:
    """Unpacks a resource. Raises ValueError for a kind unknown here, DecodeError for bytes that are not a message."""
    return _message_class(packed.TypeName()).FromString(packed.value)


def has_status(resource: Message) -> bool:
    """Whether a resource of any kind has its status set."""
    return "status" in resource.DESCRIPTOR.fields_by_name and resource.HasField("status")


def noun_of(packed: any_pb2.Any) -> str:
    """The kind as a field name: `storage_pool` for a `kowa.v2.StoragePool`; empty when nothing was sent."""
    return snake(packed.TypeName().rpartition(".")[2])


@cache
def _message_class(full_name: str) -> type[Message]:
    """Finds a class by the contract's rule: a kind's message is declared in the file named after its noun."""
    package, _, name = full_name.rpartition(".")
    try:
        found = getattr(import_module(f"{package}.{snake(name)}_pb2"), name)
    except (ImportError, AttributeError, TypeError):
        raise ValueError("this agent knows no such kind; a newer one may") from None
    return cast(type[Message], found)
