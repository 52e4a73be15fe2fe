"""A client of a Kahuna of its own."""

from collections.abc import Iterator

import pytest

from kowa.client import Client
from tests.sdk.fixtures import Kahuna, cloud, fake, kahuna, shop

__all__ = ["cloud", "fake", "kahuna", "shop"]


@pytest.fixture
def client(kahuna: Kahuna) -> Iterator[Client]:
    """With the admin key."""
    with Client(kahuna.endpoint, key=kahuna.key, insecure=True) as client:
        yield client
