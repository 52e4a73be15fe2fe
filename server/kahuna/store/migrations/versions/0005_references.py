"""References that no column holds: those of lists and of nested parts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this version. Until now only instances had such references, each answered by one in a column."""
    op.create_table(
        "reference",
        sa.Column("source_id", sa.String(length=36), nullable=False),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("target_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "field", "target_id", name=op.f("pk_reference")),
    )
    op.create_index(op.f("ix_reference_target_id"), "reference", ["target_id"], unique=False)
    for table in ("volume", "adapter"):
        op.execute(
            "INSERT INTO reference (source_id, field, target_id, kind) "  # noqa: S608 - of our own words
            f"SELECT instance_id, '{table}s', id, 'Instance' FROM {table} WHERE instance_id IS NOT NULL"
        )


def downgrade() -> None:
    """Back to the one before."""
    op.drop_table("reference")
