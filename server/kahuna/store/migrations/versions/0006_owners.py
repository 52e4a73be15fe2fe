"""A vnet may be a project's, a Kiwi has members, a volume's size is summed and a pool promises its capacity once."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SIZE, MEMBERS = 7, 6  # the numbers of Volume.size and Kiwi.members in their messages
OVERCOMMIT = b"\x39\x00\x00\x00\x00\x00\x00\xf0\x3f"  # StoragePool.overcommit, the highest of `spec`: 1.0


def upgrade() -> None:
    """To this version."""
    _vnets()
    _kiwis()
    op.execute("ALTER TABLE volume ADD COLUMN size BIGINT NOT NULL DEFAULT 0")
    volumes = sa.table("volume", sa.column("id"), sa.column("spec", sa.LargeBinary), sa.column("size"))
    for id_, spec in op.get_bind().execute(sa.select(volumes.c.id, volumes.c.spec)).all():
        size = next((value for number, value in _fields(bytes(spec)) if number == SIZE), 0)
        op.execute(volumes.update().where(volumes.c.id == id_).values(size=size))
    pools = sa.table("storagepool", sa.column("id"), sa.column("spec", sa.LargeBinary))
    for id_, spec in op.get_bind().execute(sa.select(pools.c.id, pools.c.spec)).all():
        op.execute(pools.update().where(pools.c.id == id_).values(spec=bytes(spec) + OVERCOMMIT))


def downgrade() -> None:
    """Back to the one before."""
    raise NotImplementedError("a Kiwi's members can't be put into one column; restore the backup from before")


def _vnets() -> None:
    op.execute("ALTER TABLE vnet ADD COLUMN project_id VARCHAR REFERENCES project (id)")
    op.create_index("ix_vnet_project_id", "vnet", ["project_id"])
    op.drop_index("ix_vnet_region_id_name", "vnet")
    _unique("vnet", ["region_id", "name"], "delete_time IS NULL AND project_id IS NULL")
    _unique("vnet", ["project_id", "region_id", "name"], "delete_time IS NULL")


def _kiwis() -> None:
    """The one agent of a Kiwi becomes its member, in the first zone of the region that there is."""
    _unique("reference", ["target_id"], "kind = 'Kiwi' AND field = 'members.agent'", "ix_reference_kiwi_agent")
    bind = op.get_bind()
    bound = "SELECT id, region_id, agent_id, spec FROM kiwi WHERE agent_id IS NOT NULL"
    for id_, region, agent, spec in bind.execute(sa.text(bound)).all():
        zone = bind.execute(sa.text("SELECT min(id) FROM zone WHERE region_id = :region"), {"region": region}).scalar()
        if zone is None:
            continue  # without a zone there is no host, and nothing that it could carry
        member = _text(1, agent) + _text(2, zone)
        changed = bytes(spec) + bytes([MEMBERS << 3 | 2, len(member)]) + member
        bind.execute(sa.text("UPDATE kiwi SET spec = :spec WHERE id = :id"), {"spec": changed, "id": id_})
        for field, target in (("members.agent", agent), ("members.zone", zone)):
            named = {"source": id_, "field": field, "target": target}
            bind.execute(sa.text("INSERT INTO reference VALUES (:source, :field, :target, 'Kiwi')"), named)
    op.drop_index("ix_kiwi_agent_id", "kiwi")
    if bind.dialect.name != "sqlite":
        op.drop_column("kiwi", "agent_id")
        return
    # SQLite drops no column that a foreign key stands on: the table is made anew.
    kept = "id, generation, revision, create_time, update_time, delete_time, spec, status, secret, region_id, name"
    for index in ("ix_kiwi_delete_time", "ix_kiwi_region_id", "ix_kiwi_region_id_name"):
        op.drop_index(index, "kiwi")
    op.execute("ALTER TABLE kiwi RENAME TO kiwi_before")
    op.execute(
        "CREATE TABLE kiwi (id VARCHAR(36) NOT NULL, generation BIGINT NOT NULL, revision BIGINT NOT NULL, "
        "create_time BIGINT NOT NULL, update_time BIGINT NOT NULL, delete_time BIGINT, spec BLOB NOT NULL, "
        "status BLOB NOT NULL, secret BLOB NOT NULL, region_id VARCHAR NOT NULL, name VARCHAR NOT NULL, "
        "CONSTRAINT pk_kiwi PRIMARY KEY (id), FOREIGN KEY(region_id) REFERENCES region (id))"
    )
    op.execute(f"INSERT INTO kiwi ({kept}) SELECT {kept} FROM kiwi_before")  # noqa: S608 - of our own words
    op.execute("DROP TABLE kiwi_before")
    op.create_index("ix_kiwi_delete_time", "kiwi", ["delete_time"])
    op.create_index("ix_kiwi_region_id", "kiwi", ["region_id"])
    _unique("kiwi", ["region_id", "name"], "delete_time IS NULL")


def _unique(table: str, columns: list[str], where: str, name: str = "") -> None:
    counted = sa.text(where)
    name = name or f"ix_{table}_{'_'.join(columns)}"
    op.create_index(name, table, columns, unique=True, sqlite_where=counted, postgresql_where=counted)


def _text(number: int, text: str) -> bytes:
    """A field of a message that holds an id."""
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def _fields(data: bytes) -> Iterator[tuple[int, int]]:
    """The numbers of a message's fields with their values, of texts their lengths."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        number, form = divmod(varint(), 8)
        value = varint() if form in (0, 2) else 0
        at += {0: 0, 1: 8, 2: value, 5: 4}[form]
        yield number, value
