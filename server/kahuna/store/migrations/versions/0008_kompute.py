"""Komputes, and what says of instances, volumes and adapters that they are parts of one."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

PARTS = ("adapter", "instance", "volume")


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "kompute",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.LargeBinary(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("region_id", sa.String(), nullable=True),
        sa.Column("zone_id", sa.String(), nullable=True),
        sa.Column("template_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_kompute_project_id")),
        sa.ForeignKeyConstraint(["region_id"], ["region.id"], name=op.f("fk_kompute_region_id")),
        sa.ForeignKeyConstraint(["zone_id"], ["zone.id"], name=op.f("fk_kompute_zone_id")),
        sa.ForeignKeyConstraint(["template_id"], ["template.id"], name=op.f("fk_kompute_template_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kompute")),
    )
    for column in ("delete_time", "project_id", "region_id", "zone_id", "template_id"):
        op.create_index(op.f(f"ix_kompute_{column}"), "kompute", [column])
    unmarked = sa.text("delete_time IS NULL")
    op.create_index(
        op.f("ix_kompute_project_id_name"),
        "kompute",
        ["project_id", "name"],
        unique=True,
        sqlite_where=unmarked,
        postgresql_where=unmarked,
    )
    for table in PARTS:
        key = f"CONSTRAINT fk_{table}_kompute_id REFERENCES kompute (id)"
        op.execute(f"ALTER TABLE {table} ADD COLUMN kompute_id VARCHAR {key}")
        op.create_index(op.f(f"ix_{table}_kompute_id"), table, ["kompute_id"])


def downgrade() -> None:
    """Back to the one before. What is a part of a kompute stands by itself again."""
    for table in PARTS:
        op.drop_index(op.f(f"ix_{table}_kompute_id"), table)
        with op.batch_alter_table(table) as batch:
            batch.drop_column("kompute_id")
    op.drop_table("kompute")
