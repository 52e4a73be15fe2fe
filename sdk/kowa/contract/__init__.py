"""The contracts as data: kinds, services, methods, fields, rules, comments, read from `descriptors.binpb`.

SDK, kowactl, gateway and server all derive from here what the contracts say. Nothing of it needs grpc.
"""

from functools import cache
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2

from kowa.contract.model import (
    Contract,
    Enum,
    Field,
    Http,
    Key,
    Kind,
    Message,
    Method,
    Oneof,
    Reference,
    Service,
    Unique,
    Value,
    place,
    values,
)
from kowa.contract.reading import read, snake

__all__ = [
    "DESCRIPTORS", "PACKAGES", "Contract", "Enum", "Field", "Http", "Key", "Kind", "Message", "Method", "Oneof",
    "Reference", "Service", "Unique", "Value", "file_set", "load", "place", "read", "snake", "values",
]  # fmt: skip

DESCRIPTORS: Final = Path(__file__).parent.parent / "descriptors.binpb"
PACKAGES: Final = ("kowa.v2",)  # whose services and messages clients speak


@cache
def load() -> Contract:
    """The contract that this package was built with."""
    return read(file_set().file, PACKAGES)


def file_set() -> descriptor_pb2.FileDescriptorSet:
    """The descriptors as protoc wrote them, with their comments."""
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
