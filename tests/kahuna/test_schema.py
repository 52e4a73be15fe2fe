"""The migrations create exactly the tables of the code, on both databases."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlmodel import SQLModel

from kahuna.store.database import Store
from kahuna.store.schema import migrate
from tests.control_plane import ControlPlane


def test_the_migrations_create_the_tables_of_the_code(cloud: ControlPlane) -> None:
    with cloud.kahuna.store.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences: list[Any] = compare_metadata(context, SQLModel.metadata)
    assert differences == []


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("0001", "no release had .*; restore a backup that a release made, or start the last version that has this"),
        ("0005", "no release had .*; restore a backup that a release made, or start the last version that has this"),
        ("9999", "this Kahuna does not know; use the one that made it"),
    ],
)
def test_an_unknown_schema_is_refused(tmp_path: Path, version: str, remedy: str) -> None:
    """A schema of a newer Kahuna, or of one between two releases."""
    store = Store(f"sqlite:///{tmp_path / 'kahuna.db'}")
    migrate(store.engine)
    with store.engine.connect() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        connection.commit()
    with pytest.raises(SystemExit, match=f"schema {version}, which {remedy}"):
        migrate(store.engine)
    store.dispose()
