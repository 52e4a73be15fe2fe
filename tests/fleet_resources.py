"""The resources inside the stream's objects and reports, for tests that read or change them."""

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
    """The resource that it carries; changes are packed at the end of the block."""
    resource = content(carrier)
    yield resource
    carrier.resource.CopyFrom(resources.pack(resource))
