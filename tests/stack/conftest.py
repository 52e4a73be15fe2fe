"""A whole stack for each file of tests."""

from collections.abc import Iterator

import pytest

from tests.stack import house as houses
from tests.stack.house import House
from tests.stack.slow_source import SlowSource
from tests.stack.stack import stack


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A region with a host whose agent is at work."""
    with stack() as made:
        yield houses.house(made)


@pytest.fixture(scope="module")
def slow_source(house: House) -> Iterator[SlowSource]:
    """What takes for ever to fetch."""
    source = SlowSource(house.stack.here)
    yield source
    source.close()
