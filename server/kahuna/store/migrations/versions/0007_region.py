"""Instances have a region, and a zone only if one is wished for."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The tag and the length of an instance's field 16 as a message has it; the highest of `spec`, so it stands at the end.
REGION = b"\x82\x01\x24"


def upgrade() -> None:
    """To this version. Generations stay: what agents are to do is the same."""
    op.execute("ALTER TABLE instance ADD COLUMN region_id VARCHAR REFERENCES region (id)")
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(
            "SELECT instance.id, instance.spec, zone.region_id FROM instance JOIN zone ON zone.id = instance.zone_id"
        )
    ).all()
    for id_, spec, region in rows:
        connection.execute(
            sa.text("UPDATE instance SET spec = :spec, region_id = :region WHERE id = :id"),
            {"id": id_, "spec": bytes(spec) + REGION + region.encode(), "region": region},
        )
    op.create_index("ix_instance_region_id", "instance", ["region_id"])
    if connection.dialect.name == "sqlite":
        _make_zone_optional()
    else:
        op.alter_column("instance", "zone_id", nullable=True)


def downgrade() -> None:
    """Back to the one before."""
    raise NotImplementedError("an instance without a zone can't be put back; restore the backup from before")


def _make_zone_optional() -> None:
    """SQLite has no ALTER COLUMN; what it demands of one is changed as its manual says (lang_altertable, 7)."""
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = connection.exec_driver_sql(
        "UPDATE sqlite_schema SET sql = replace(sql, 'zone_id VARCHAR NOT NULL', 'zone_id VARCHAR') "
        "WHERE type = 'table' AND name = 'instance'"
    )
    assert changed.rowcount == 1
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
