"""Vnets of projects, members of Kiwis, sizes of volumes, regions of instances, komputes, references of nested parts."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

revision = "0008"
down_revision = "0003"

RESOURCES = (
    "adapter", "agent", "agenttoken", "instance", "kaktus", "kiwi", "operation", "project", "region", "storagepool",
    "subnet", "template", "vnet", "volume", "zone",
)  # fmt: skip
VOLUME_SIZE = 7  # the number of this field in its message
# Fields to append to serialised messages: tags with lengths or values. Each is the highest of its message, or a list.
OVERCOMMIT = b"\x39\x00\x00\x00\x00\x00\x00\xf0\x3f"  # StoragePool.overcommit, 1.0
MEMBER = b"\x32\x4c"  # Kiwi.members, of an agent and a zone
MEMBER_AGENT, MEMBER_ZONE, REGION = b"\x0a\x24", b"\x12\x24", b"\x82\x01\x24"  # ids of 36 characters


def upgrade() -> None:
    """Migrates to komputes. Generations stay: the objects of agents are the same."""
    for table in RESOURCES:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN sealed TO secret")
    _create_references()
    op.execute("ALTER TABLE vnet ADD COLUMN project_id VARCHAR REFERENCES project (id)")
    op.create_index("ix_vnet_project_id", "vnet", ["project_id"])
    op.drop_index("ix_vnet_region_id_name", "vnet")
    _create_unique("vnet", "region_id", "name", where="delete_time IS NULL AND project_id IS NULL")
    _create_unique("vnet", "project_id", "region_id", "name")
    _move_agents_of_kiwis()
    op.execute("ALTER TABLE volume ADD COLUMN size BIGINT NOT NULL DEFAULT 0")
    for id_, spec in _rows("SELECT id, spec FROM volume"):
        fields: Any = UnknownFieldSet(Empty.FromString(spec))
        _update("volume", id_, size=next((field.data for field in fields if field.field_number == VOLUME_SIZE), 0))
    for id_, spec in _rows("SELECT id, spec FROM storagepool"):
        _update("storagepool", id_, spec=spec + OVERCOMMIT)
    _give_instances_regions()
    _create_komputes()


def _create_references() -> None:
    """Creates the table of references without a column. So far only instances have some: the inverse of columns."""
    op.create_table(
        "reference",
        sa.Column("source_id", sa.String(36), primary_key=True),
        sa.Column("field", sa.String, primary_key=True),
        sa.Column("target_id", sa.String(36), primary_key=True, index=True),
        sa.Column("kind", sa.String, nullable=False),
    )
    for table in ("volume", "adapter"):
        op.execute(
            "INSERT INTO reference (source_id, field, target_id, kind) "  # noqa: S608 - only our own table names
            f"SELECT instance_id, '{table}s', id, 'Instance' FROM {table} WHERE instance_id IS NOT NULL"
        )


def _move_agents_of_kiwis() -> None:
    """Turns the one agent of a Kiwi into its member, in the first zone of the region."""
    condition = "kind = 'Kiwi' AND field = 'members.agent'"
    _create_unique("reference", "target_id", where=condition, name="ix_reference_kiwi_agent")
    # Without a zone there is no host, and no traffic for a Kiwi.
    bound = _rows(
        "SELECT kiwi.id, agent_id, kiwi.spec, min(zone.id) FROM kiwi JOIN zone ON zone.region_id = kiwi.region_id "
        "WHERE agent_id IS NOT NULL GROUP BY kiwi.id"
    )
    for id_, agent, spec, zone in bound:
        _update("kiwi", id_, spec=spec + MEMBER + MEMBER_AGENT + agent.encode() + MEMBER_ZONE + zone.encode())
        named = [{"kiwi": id_, "field": "members.agent", "target": agent}]
        named += [{"kiwi": id_, "field": "members.zone", "target": zone}]
        op.get_bind().execute(sa.text("INSERT INTO reference VALUES (:kiwi, :field, :target, 'Kiwi')"), named)
    op.drop_index("ix_kiwi_agent_id", "kiwi")
    with op.batch_alter_table("kiwi") as batch:  # recreates the table: SQLite can't drop the column itself
        batch.drop_column("agent_id")
    if op.get_bind().dialect.name == "sqlite":  # as in databases that earlier versions have migrated
        _edit_definition("kiwi", "CONSTRAINT fk_kiwi_region_id FOREIGN KEY", "FOREIGN KEY")


def _give_instances_regions() -> None:
    """Gives each instance the region of its zone; from now on the zone is optional."""
    op.execute("ALTER TABLE instance ADD COLUMN region_id VARCHAR REFERENCES region (id)")
    op.create_index("ix_instance_region_id", "instance", ["region_id"])
    zoned = "SELECT instance.id, instance.spec, zone.region_id FROM instance JOIN zone ON zone.id = instance.zone_id"
    for id_, spec, region in _rows(zoned):
        _update("instance", id_, spec=spec + REGION + region.encode(), region_id=region)
    if op.get_bind().dialect.name == "sqlite":
        _edit_definition("instance", "zone_id VARCHAR NOT NULL", "zone_id VARCHAR")
    else:
        op.alter_column("instance", "zone_id", nullable=True)


def _create_komputes() -> None:
    """Creates komputes, and the references of instances, volumes and adapters that are parts of one."""
    op.create_table(
        "kompute",
        sa.Column("id", sa.String(36), primary_key=True),
        *(
            sa.Column(column, sa.BigInteger, nullable=False)
            for column in ("generation", "revision", "create_time", "update_time")
        ),
        sa.Column("delete_time", sa.BigInteger, index=True),
        *(sa.Column(column, sa.LargeBinary, nullable=False) for column in ("spec", "status", "secret")),
        sa.Column("project_id", sa.String, sa.ForeignKey("project.id"), nullable=False, index=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("region_id", sa.String, sa.ForeignKey("region.id"), index=True),
        sa.Column("zone_id", sa.String, sa.ForeignKey("zone.id"), index=True),
        sa.Column("template_id", sa.String, sa.ForeignKey("template.id"), nullable=False, index=True),
    )
    _create_unique("kompute", "project_id", "name")
    for table in ("adapter", "instance", "volume"):
        key = f"CONSTRAINT fk_{table}_kompute_id REFERENCES kompute (id)"
        op.execute(f"ALTER TABLE {table} ADD COLUMN kompute_id VARCHAR {key}")
        op.create_index(f"ix_{table}_kompute_id", table, ["kompute_id"])


def _create_unique(table: str, *columns: str, where: str = "delete_time IS NULL", name: str = "") -> None:
    condition, name = sa.text(where), name or f"ix_{table}_{'_'.join(columns)}"
    op.create_index(name, table, columns, unique=True, sqlite_where=condition, postgresql_where=condition)


def _edit_definition(table: str, old: str, new: str) -> None:
    """Edits the stored definition of a table: SQLite has no ALTER COLUMN (see its manual, lang_altertable, 7)."""
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    definition = "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ?"
    assert connection.exec_driver_sql(definition, (old, new, table)).rowcount == 1
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _rows(query: str) -> list[Any]:
    return list(op.get_bind().execute(sa.text(query)))


def _update(table: str, id_: str, **values: Any) -> None:
    columns = sa.table(table, sa.column("id"), *(sa.column(name) for name in values))
    op.execute(columns.update().where(columns.c.id == id_).values(values))
