"""The migrations lead to exactly the tables that the code has, on both databases."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

from tests.control_plane import ControlPlane


def test_the_migrations_make_what_the_code_has(cloud: ControlPlane) -> None:
    with cloud.kahuna.store.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        differences: list[Any] = compare_metadata(context, SQLModel.metadata)
    assert differences == []
