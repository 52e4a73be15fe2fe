"""The audit trail, which the database itself keeps as it was written."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

YEAR = 365 * 24 * 3600  # seconds


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("caller", "method", "reason", "target_kind", "target", "target_name", "project", "operation")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_time"), "audit", ["time"], unique=False)
    op.create_index(op.f("ix_audit_target"), "audit", ["target"], unique=False)
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    """Back to the one before."""
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_kept")


_SQLITE = (
    """CREATE TRIGGER audit_is_not_altered BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END""",
    f"""CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
        WHEN OLD.time > (unixepoch() - {YEAR}) * 1000000
        BEGIN SELECT RAISE(ABORT, 'the audit trail is kept for a year'); END""",
)
_POSTGRESQL = (
    f"""CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF TG_OP = 'UPDATE' THEN RAISE EXCEPTION 'the audit trail is only added to'; END IF;
          IF OLD.time > (extract(epoch FROM now()) - {YEAR}) * 1000000
          THEN RAISE EXCEPTION 'the audit trail is kept for a year'; END IF;
          RETURN OLD;
        END $$""",
    """CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE ON audit
       FOR EACH ROW EXECUTE FUNCTION audit_is_kept()""",
)
