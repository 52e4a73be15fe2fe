"""A stack for each module of tests."""

from collections.abc import Iterator

import pytest

from tests.stack.site import Site, make_site
from tests.stack.slow_source import SlowSource
from tests.stack.stack import stack


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A site on a new stack, with an agent at work."""
    with stack() as new_stack:
        yield make_site(new_stack)


@pytest.fixture(scope="module")
def slow_source(site: Site) -> Iterator[SlowSource]:
    """A source of a template whose download never ends."""
    source = SlowSource(site.stack.kahuna_address)
    yield source
    source.close()
