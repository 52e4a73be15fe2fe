"""One clone for all tests of the demo."""

from collections.abc import Iterator

import pytest

from tests.demo.checkout import Checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone, whose demo is removed afterwards."""
    checkout = Checkout(tmp_path_factory.mktemp("demo") / "kowabunga")
    try:
        yield checkout
    finally:
        checkout.run("make -s down")
