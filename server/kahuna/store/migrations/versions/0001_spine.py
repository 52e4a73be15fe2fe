"""The kinds of the spine, the revision log, requests, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "adminkey",
    "agent",
    "gone",
    "head",
    "log",
    "operation",
    "project",
    "region",
    "request",
    "agenttoken",
    "kiwi",
    "vnet",
    "zone",
    "kaktus",
    "subnet",
    "instance",
    "storagepool",
    "adapter",
    "template",
    "volume",
)


def upgrade() -> None:
    """To this version."""
    op.create_table(
        "adminkey",
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_adminkey")),
    )
    _resource("agent", sa.Column("name", sa.String(), nullable=False))
    _unique_among_the_living("agent", "name")
    op.create_table(
        "gone",
        sa.Column("object_id", sa.String(36), nullable=False),
        sa.Column("agent_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("object_id", "agent_id", name=op.f("pk_gone")),
    )
    op.create_table(
        "head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("incarnation", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head")),
    )
    op.create_table(
        "log",
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("revision", "id", name=op.f("pk_log")),
    )
    _resource(
        "operation", sa.Column("target", sa.String(), nullable=False), sa.Column("phase", sa.Integer(), nullable=False)
    )
    _index("operation", "phase")
    _index("operation", "target")
    _resource("project", sa.Column("name", sa.String(), nullable=False))
    _unique_among_the_living("project", "name")
    _resource("region", sa.Column("name", sa.String(), nullable=False))
    _unique_among_the_living("region", "name")
    op.create_table(
        "request",
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "request_id", name=op.f("pk_request")),
    )
    _index("request", "time")
    _resource(
        "agenttoken",
        _reference("agent_id", "agent"),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
    )
    _index("agenttoken", "agent_id")
    _unique_among_the_living("agenttoken", "agent_id", "name")
    _index("agenttoken", "prefix", unique=True)
    _resource(
        "kiwi",
        _reference("region_id", "region"),
        sa.Column("name", sa.String(), nullable=False),
        _reference("agent_id", "agent", optional=True),
    )
    _unique_among_the_living("kiwi", "agent_id")
    _index("kiwi", "region_id")
    _unique_among_the_living("kiwi", "region_id", "name")
    _resource("vnet", _reference("region_id", "region"), sa.Column("name", sa.String(), nullable=False))
    _index("vnet", "region_id")
    _unique_among_the_living("vnet", "region_id", "name")
    _resource("zone", _reference("region_id", "region"), sa.Column("name", sa.String(), nullable=False))
    _index("zone", "region_id")
    _unique_among_the_living("zone", "region_id", "name")
    _resource(
        "kaktus",
        _reference("zone_id", "zone"),
        sa.Column("name", sa.String(), nullable=False),
        _reference("agent_id", "agent", optional=True),
    )
    _unique_among_the_living("kaktus", "agent_id")
    _index("kaktus", "zone_id")
    _unique_among_the_living("kaktus", "zone_id", "name")
    _resource(
        "subnet",
        _reference("vnet_id", "vnet"),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("cidr", sa.String(), nullable=False),
    )
    _index("subnet", "vnet_id")
    _unique_among_the_living("subnet", "vnet_id", "name")
    _resource(
        "instance",
        _reference("project_id", "project"),
        sa.Column("name", sa.String(), nullable=False),
        _reference("zone_id", "zone"),
        _reference("kaktus_id", "kaktus", optional=True),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
    )
    _index("instance", "kaktus_id")
    _index("instance", "project_id")
    _unique_among_the_living("instance", "project_id", "name")
    _index("instance", "zone_id")
    _resource(
        "storagepool",
        _reference("region_id", "region"),
        sa.Column("name", sa.String(), nullable=False),
        _reference("kaktus_id", "kaktus", optional=True),
    )
    _index("storagepool", "kaktus_id")
    _index("storagepool", "region_id")
    _unique_among_the_living("storagepool", "region_id", "name")
    _resource(
        "adapter",
        _reference("project_id", "project"),
        sa.Column("name", sa.String(), nullable=False),
        _reference("subnet_id", "subnet"),
        sa.Column("mac", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        _reference("instance_id", "instance", optional=True),
    )
    _index("adapter", "instance_id")
    _unique_among_the_living("adapter", "mac")
    _index("adapter", "project_id")
    _unique_among_the_living("adapter", "project_id", "name")
    _index("adapter", "subnet_id")
    _unique_among_the_living("adapter", "subnet_id", "address")
    _resource("template", _reference("storage_pool_id", "storagepool"), sa.Column("name", sa.String(), nullable=False))
    _index("template", "storage_pool_id")
    _unique_among_the_living("template", "storage_pool_id", "name")
    _resource(
        "volume",
        _reference("project_id", "project"),
        sa.Column("name", sa.String(), nullable=False),
        _reference("storage_pool_id", "storagepool"),
        _reference("template_id", "template", optional=True),
        _reference("instance_id", "instance", optional=True),
    )
    _index("volume", "instance_id")
    _index("volume", "project_id")
    _unique_among_the_living("volume", "project_id", "name")
    _index("volume", "storage_pool_id")
    _index("volume", "template_id")


def downgrade() -> None:
    """Back to the one before."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _resource(name: str, *own: sa.Column) -> None:  # type: ignore[type-arg]
    """A kind's table: what every kind has, then its own."""
    op.create_table(
        name,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=True),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        *own,
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    _index(name, "delete_time")


def _reference(column: str, table: str, *, optional: bool = False) -> sa.Column:  # type: ignore[type-arg]
    """A column that names a row of a table."""
    return sa.Column(column, sa.String(), sa.ForeignKey(f"{table}.id"), nullable=optional)


def _index(table: str, *columns: str, unique: bool = False) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns, unique=unique)


def _unique_among_the_living(table: str, *columns: str) -> None:
    living = sa.text("delete_time IS NULL")
    name = op.f(f"ix_{table}_{'_'.join(columns)}")
    op.create_index(name, table, columns, unique=True, sqlite_where=living, postgresql_where=living)
