"""One clone for all stories about the demo."""

from collections.abc import Iterator

import pytest

from tests.demo.checkout import Checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Nothing of it is left on the machine afterwards."""
    made = Checkout(tmp_path_factory.mktemp("demo") / "kowabunga")
    try:
        yield made
    finally:
        made.run("make -s down")
