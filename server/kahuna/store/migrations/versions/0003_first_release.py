"""The tables of the first release."""

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, text
from sqlalchemy.schema import SchemaItem

revision = "0003"
down_revision = None

YEAR_S = 365 * 24 * 3600


def upgrade() -> None:
    """Creates all tables."""
    _create("adminkey", _key("prefix"), _column("digest", LargeBinary))
    _create("gone", _key("object_id", 36), _key("agent_id", 36))
    _create("head", Column("id", Integer, primary_key=True), _column("revision", BigInteger), "incarnation")
    log_key = Column("revision", BigInteger, primary_key=True, autoincrement=False)
    _create("log", log_key, _key("id", 36), "kind", "project", _column("removed", Boolean))
    _create(
        "request",
        *(_key("caller"), _key("method"), _key("request_id")),
        *(_column("digest", LargeBinary), "target", "operation", _column("time", BigInteger, index=True)),
    )
    _create(
        "command",
        *(_key("id", 36), _column("agent_id", String(36), index=True), _column("target_id", String(36), index=True)),
        *(_column("deadline", BigInteger), _column("sent", Boolean), _column("data", LargeBinary)),
    )
    _create_resources()
    # The audit trail, whose rows triggers protect from changes.
    _create(
        "audit",
        Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
        *(_column("time", BigInteger, index=True), "caller", "method", "reason", "target_kind"),
        *(_column("target", String, index=True), "target_name", "project", "operation"),
    )
    for statement in AUDIT_TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)


def _create_resources() -> None:
    _resource("agent", "name", _unique("name"))
    _resource("operation", _column("target", String, index=True), _column("phase", Integer, index=True))
    _resource("project", "name", _unique("name"))
    _resource("region", "name", _unique("name"))
    prefix = _column("prefix", String, index=True, unique=True)
    _resource("agenttoken", _reference("agent"), "name", prefix, _unique("agent_id", "name"))
    _resource("kiwi", _reference("region"), "name", _agent(), _unique("agent_id"), _unique("region_id", "name"))
    _resource("vnet", _reference("region"), "name", _unique("region_id", "name"))
    _resource("zone", _reference("region"), "name", _unique("region_id", "name"))
    _resource("kaktus", _reference("zone"), "name", _agent(), _unique("agent_id"), _unique("zone_id", "name"))
    _resource("subnet", _reference("vnet"), "name", "cidr", _unique("vnet_id", "name"))
    _resource(
        "instance",
        *(_reference("project"), "name", _reference("zone"), _optional("kaktus")),
        *(_column("vcpus", Integer), _column("memory", BigInteger), _unique("project_id", "name")),
    )
    _resource("storagepool", _reference("region"), "name", _optional("kaktus"), _unique("region_id", "name"))
    _resource(
        "adapter",
        *(_reference("project"), "name", _reference("subnet"), "mac", "address", _optional("instance")),
        *(_unique("mac"), _unique("project_id", "name"), _unique("subnet_id", "address")),
    )
    _resource("template", _reference("storage_pool"), "name", _unique("storage_pool_id", "name"))
    _resource(
        "volume",
        *(_reference("project"), "name", _reference("storage_pool"), _optional("template"), _optional("instance")),
        _unique("project_id", "name"),
    )


def _resource(name: str, *own_columns: SchemaItem | str) -> None:
    """Creates a kind's table: the common columns, then its own."""
    _create(
        name,
        _key("id", 36),
        *(_column(column, BigInteger) for column in ("generation", "revision", "create_time", "update_time")),
        Column("delete_time", BigInteger, index=True),
        *(_column(column, LargeBinary) for column in ("spec", "status", "sealed")),
        *own_columns,
    )


def _create(table: str, *columns: SchemaItem | str) -> None:
    """Creates a table; a column of plain text is given by its name."""
    op.create_table(table, *(_column(item, String) if isinstance(item, str) else item for item in columns))


def _column(name: str, type_: Any, **options: bool) -> Column[Any]:
    return Column(name, type_, nullable=False, **options)  # type: ignore[arg-type]


def _key(name: str, length: int | None = None) -> Column[str]:
    return Column(name, String(length), primary_key=True)


def _reference(kind: str) -> Column[Any]:
    return Column(f"{kind}_id", String, ForeignKey(f"{kind.replace('_', '')}.id"), nullable=False, index=True)


def _optional(kind: str) -> Column[Any]:
    return Column(f"{kind}_id", String, ForeignKey(f"{kind}.id"), index=True)


def _agent() -> Column[Any]:
    return Column("agent_id", String, ForeignKey("agent.id"))


def _unique(*columns: str) -> Index:
    """Uniqueness among rows not marked for deletion."""
    unmarked = text("delete_time IS NULL")
    return Index(None, *columns, unique=True, sqlite_where=unmarked, postgresql_where=unmarked)


AUDIT_TRIGGERS = {
    "sqlite": (
        """CREATE TRIGGER audit_is_not_altered BEFORE UPDATE ON audit
           BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END""",
        f"""CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
            WHEN OLD.time > (unixepoch() - {YEAR_S}) * 1000000
            BEGIN SELECT RAISE(ABORT, 'the audit trail is kept for a year'); END""",
    ),
    "postgresql": (
        f"""CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF TG_OP = 'UPDATE' THEN RAISE EXCEPTION 'the audit trail is only added to'; END IF;
          IF OLD.time > (extract(epoch FROM now()) - {YEAR_S}) * 1000000
          THEN RAISE EXCEPTION 'the audit trail is kept for a year'; END IF;
          RETURN OLD;
        END $$""",
        """CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE ON audit
       FOR EACH ROW EXECUTE FUNCTION audit_is_kept()""",
    ),
}
