"""One clone for all stories about the demo."""

from collections.abc import Iterator

import pytest

from tests.demo.checkout import ROOT, Checkout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Nothing of it is left on the machine afterwards."""
    made = Checkout(tmp_path_factory.mktemp("demo") / "kowabunga")
    # Packages are downloaded for this checkout's image once; the clone may use them.
    cache = ROOT / ".cache" / "guest"
    if cache.is_dir():
        made.run(f"mkdir -p .cache && cp -a '{cache}' .cache/")
    try:
        yield made
    finally:
        made.run("make -s down")
