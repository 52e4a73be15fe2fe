"""What is shown to nobody stands in the column `secret`."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = (
    "adapter", "agent", "agenttoken", "instance", "kaktus", "kiwi", "operation", "project", "region", "storagepool",
    "subnet", "template", "vnet", "volume", "zone",
)  # fmt: skip


def upgrade() -> None:
    """To this version."""
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN sealed TO secret")


def downgrade() -> None:
    """Back to the one before."""
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN secret TO sealed")
