"""The migration of the made-up kinds, as a file for Kahuna's `migrations/versions/`."""

import shutil
from pathlib import Path

from kahuna.store import schema

MIGRATION = '''
"""The made-up kinds."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade():
    resource = lambda: (
        sa.Column("id", sa.String(36), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("generation", "revision")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("create_time", "update_time")),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("spec", "status", "secret")),
        sa.Column("name", sa.String(), nullable=False),
    )
    unmarked = sa.text("delete_time IS NULL")
    op.create_table("farm", *resource(), sa.PrimaryKeyConstraint("id", name="pk_farm"))
    op.create_table(
        "balancer",
        *resource(),
        sa.Column("farm_id", sa.String(), sa.ForeignKey("farm.id"), nullable=False),
        sa.Column("kaktus_id", sa.String(), sa.ForeignKey("kaktus.id"), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_balancer"),
    )
    for table, columns in (("farm", ["name"]), ("balancer", ["farm_id", "name"]), ("balancer", ["address"])):
        name = f"ix_{{table}}_{{'_'.join(columns)}}"
        op.create_index(name, table, columns, unique=True, sqlite_where=unmarked, postgresql_where=unmarked)
    for table, column in (
        ("farm", "delete_time"), ("balancer", "delete_time"), ("balancer", "farm_id"), ("balancer", "kaktus_id")
    ):
        op.create_index(f"ix_{{table}}_{{column}}", table, [column])
'''


def migrate_with(folder: Path) -> None:
    """Adds the migration of the made-up kinds to a copy of Kahuna's migrations, and uses the copy."""
    copy = folder / "migrations"
    shutil.copytree(schema.MIGRATIONS, copy)
    newest = max(path.name.partition("_")[0] for path in (copy / "versions").glob("[0-9]*.py"))
    (copy / "versions" / "9999_made_up.py").write_text(MIGRATION.format(newest=newest))
    schema.MIGRATIONS = copy
