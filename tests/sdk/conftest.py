"""Fixtures: a client, and the Kahuna it calls."""

from collections.abc import Iterator

import pytest

from kowa.client import Client
from tests.sdk.fixtures import Kahuna, cloud, fake_kahuna, kahuna, wanted_instance

__all__ = ["cloud", "fake_kahuna", "kahuna", "wanted_instance"]


@pytest.fixture
def client(kahuna: Kahuna) -> Iterator[Client]:
    """A client with the admin key."""
    with Client(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
        yield client
