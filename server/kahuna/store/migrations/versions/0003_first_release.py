"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

revision = "0003"
down_revision = None

YEAR_S = 365 * 24 * 3600


def upgrade() -> None:
    """To this version."""
    op.create_table("adminkey", _key("prefix"), _blob("digest"))
    op.create_table("gone", _key("object_id", 36), _key("agent_id", 36))
    op.create_table("head", sa.Column("id", sa.Integer, primary_key=True), _number("revision"), _text("incarnation"))
    op.create_table(
        "log",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        *(_key("id", 36), _text("kind"), _text("project"), _flag("removed")),
    )
    op.create_table(
        "request",
        *(_key("caller"), _key("method"), _key("request_id")),
        *(_blob("digest"), _text("target"), _text("operation"), _number("time", index=True)),
    )
    op.create_table(
        "command",
        *(_key("id", 36), _text("agent_id", 36, index=True), _text("target_id", 36, index=True)),
        *(_number("deadline"), _flag("sent"), _blob("data")),
    )
    _create_resources()
    _create_audit()


def _create_resources() -> None:
    _resource("agent", _name(), _unique("name"))
    _resource("operation", _text("target", index=True), sa.Column("phase", sa.Integer, nullable=False, index=True))
    _resource("project", _name(), _unique("name"))
    _resource("region", _name(), _unique("name"))
    prefix = sa.Column("prefix", sa.String, nullable=False, index=True, unique=True)
    _resource("agenttoken", _reference("agent"), _name(), prefix, _unique("agent_id", "name"))
    _resource("kiwi", _reference("region"), _name(), _agent(), _unique("agent_id"), _unique("region_id", "name"))
    _resource("vnet", _reference("region"), _name(), _unique("region_id", "name"))
    _resource("zone", _reference("region"), _name(), _unique("region_id", "name"))
    _resource("kaktus", _reference("zone"), _name(), _agent(), _unique("agent_id"), _unique("zone_id", "name"))
    _resource("subnet", _reference("vnet"), _name(), _text("cidr"), _unique("vnet_id", "name"))
    _resource(
        "instance",
        *(_reference("project"), _name(), _reference("zone"), _optional("kaktus")),
        *(sa.Column("vcpus", sa.Integer, nullable=False), _number("memory"), _unique("project_id", "name")),
    )
    _resource("storagepool", _reference("region"), _name(), _optional("kaktus"), _unique("region_id", "name"))
    _resource(
        "adapter",
        *(_reference("project"), _name(), _reference("subnet"), _text("mac"), _text("address"), _optional("instance")),
        *(_unique("mac"), _unique("project_id", "name"), _unique("subnet_id", "address")),
    )
    _resource("template", _reference("storage_pool"), _name(), _unique("storage_pool_id", "name"))
    _resource(
        "volume",
        *(_reference("project"), _name(), _reference("storage_pool"), _optional("template"), _optional("instance")),
        _unique("project_id", "name"),
    )


def _create_audit() -> None:
    """The audit trail, which the database itself keeps as it was written."""
    texts = ("caller", "method", "reason", "target_kind", "target", "target_name", "project", "operation")
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        _number("time", index=True),
        *(_text(column, index=column == "target") for column in texts),
    )
    for statement in AUDIT_TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)


def _resource(name: str, *own: SchemaItem) -> None:
    """A kind's table: what every kind has, then its own."""
    op.create_table(
        name,
        _key("id", 36),
        *(_number(column) for column in ("generation", "revision", "create_time", "update_time")),
        sa.Column("delete_time", sa.BigInteger, index=True),
        *(_blob(column) for column in ("spec", "status", "sealed")),
        *own,
    )


def _key(name: str, length: int | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), primary_key=True)


def _name() -> sa.Column[str]:
    return _text("name")


def _text(name: str, length: int | None = None, *, index: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, index=index)


def _number(name: str, *, index: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, index=index)


def _blob(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _reference(kind: str, *, nullable: bool = False) -> sa.Column[str]:
    table = kind.replace("_", "")
    return sa.Column(f"{kind}_id", sa.String, sa.ForeignKey(f"{table}.id"), nullable=nullable, index=True)


def _optional(kind: str) -> sa.Column[str]:
    return _reference(kind, nullable=True)


def _agent() -> sa.Column[str]:
    return sa.Column("agent_id", sa.String, sa.ForeignKey("agent.id"))


def _unique(*columns: str) -> sa.Index:
    """Uniqueness among rows not marked for deletion."""
    unmarked = sa.text("delete_time IS NULL")
    return sa.Index(None, *columns, unique=True, sqlite_where=unmarked, postgresql_where=unmarked)


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
