"""A whole stack for each file of tests."""

from collections.abc import Iterator

import pytest

from tests.stack.site import Site, make_site
from tests.stack.slow_source import SlowSource
from tests.stack.stack import stack


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A region with a host whose agent is at work."""
    with stack() as made:
        yield make_site(made)


@pytest.fixture(scope="module")
def slow_source(site: Site) -> Iterator[SlowSource]:
    """What takes for ever to fetch."""
    source = SlowSource(site.stack.here)
    yield source
    source.close()
