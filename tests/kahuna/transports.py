"""The clients by which users call Kahuna: gRPC, REST through a real Envoy, kowactl."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Kowactl, rest
from tests.site import Site

# kowactl is slow: each call is a process.
TRANSPORTS = [
    "grpc",
    pytest.param("rest", marks=pytest.mark.gateway),
    pytest.param("kowactl", marks=pytest.mark.slow),
]


@contextlib.contextmanager
def calling_through(site: Site, transport: str, folder: Path) -> Iterator[None]:
    """Makes the site's calls through this client."""
    with contextlib.ExitStack() as stack:
        if transport == "rest":
            site.other_client = stack.enter_context(rest(site.cloud.settings.api, site.cloud.key, folder / "gateway"))
        elif transport == "kowactl":
            site.other_client = Kowactl(site.cloud.settings.api, site.cloud.key)
        yield
