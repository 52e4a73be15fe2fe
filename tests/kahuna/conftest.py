"""Worlds for stories."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World, world


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[World]:
    """A Kahuna on SQLite, empty."""
    with world(tmp_path) as made:
        yield made
