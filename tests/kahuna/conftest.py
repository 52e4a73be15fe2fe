"""Fixtures: a Kahuna on each of the two databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control_plane import ControlPlane, control_plane
from tests.postgres import Postgres, postgres


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One PostgreSQL for the whole run."""
    with postgres() as started:
        yield started


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; empty for SQLite in Kahuna's own file."""
    if request.param == "sqlite":
        return ""
    started: Postgres = request.getfixturevalue("server")
    return started.database()


@pytest.fixture
def cloud(tmp_path: Path, database: str) -> Iterator[ControlPlane]:
    """An empty Kahuna."""
    with control_plane(tmp_path, database) as cloud:
        yield cloud
