"""What objects and reports of the stream carry, for tests that look into them or spoil them."""

import contextlib
from collections.abc import Iterator
from typing import Any

from kowa import resources
from kowa.fleet.v1 import fleet_pb2


def content(carrier: fleet_pb2.Object | fleet_pb2.Report) -> Any:
    """The resource that an object or a report carries."""
    return resources.unpack(carrier.resource)


@contextlib.contextmanager
def edited(carrier: fleet_pb2.Object | fleet_pb2.Report) -> Iterator[Any]:
    """The resource it carries, packed again at the end."""
    resource = content(carrier)
    yield resource
    carrier.resource.CopyFrom(resources.pack(resource))
