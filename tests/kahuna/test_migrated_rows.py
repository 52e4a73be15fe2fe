"""Rows of a database of commit 35ba30d, after the migrations, are as this version stores them."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlmodel import Session, col, select

from kahuna.kinds.instance import Instance
from kahuna.kinds.storage_pool import StoragePool
from kahuna.kinds.volume import Volume
from kahuna.store import schema
from kahuna.store.database import Store
from kahuna.store.resource import spec_of
from kahuna.store.tables import Reference
from kowa.v2 import instance_pb2, kiwi_pb2, storage_pool_pb2, vnet_pb2, volume_pb2

SCHEMA = "0003"  # the schema of that commit
ID = "00000000-0000-4000-8000-{:012}"
REGION, ZONE, AGENT, KIWI, PROJECT, POOL, VOLUME, INSTANCE, VNET, UNBOUND = (ID.format(number) for number in range(10))
GIB = 1 << 30


def test_rows_of_an_earlier_release_are_migrated(tmp_path: Path, database: str) -> None:
    store = Store(database or f"sqlite:///{tmp_path / 'kahuna.db'}")
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    with store.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, SCHEMA)
        for table, id_, spec, own_columns in ROWS:
            columns = {"generation": 3, "revision": 1, "create_time": 1, "update_time": 1, "status": b"", "sealed": b""}
            values = {"id": id_, "spec": spec, **columns, **own_columns}
            names = ", ".join(values)
            placeholders = ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({placeholders})"), values)  # noqa: S608
        connection.commit()
    schema.migrate(store.engine)
    store.load()
    kiwi = store.view.find("Kiwi", KIWI)
    assert isinstance(kiwi, kiwi_pb2.Kiwi)
    assert (kiwi.name, kiwi.meta.generation) == ("kiwi-1", 3)
    assert [(member.agent, member.zone) for member in kiwi.members] == [(AGENT, ZONE)]
    unbound = store.view.find("Kiwi", UNBOUND)
    assert isinstance(unbound, kiwi_pb2.Kiwi)
    assert not unbound.members
    web = store.view.find("Instance", INSTANCE)
    assert isinstance(web, instance_pb2.Instance)
    assert (web.region, web.zone, web.meta.generation) == (REGION, ZONE, 3)
    pool = store.view.find("StoragePool", POOL)
    assert isinstance(pool, storage_pool_pb2.StoragePool)
    assert (pool.overcommit, pool.meta.generation) == (1, 3), "without a ratio the pool would accept no volume"
    with Session(store.engine) as session:
        assert session.get_one(StoragePool, POOL).spec == spec_of(pool)
        row = session.get_one(Instance, INSTANCE)
        assert (row.region_id, row.spec) == (REGION, spec_of(web)), (
            "otherwise writing it back would increment the generation"
        )
        assert session.exec(select(Volume.size)).all() == [3 * GIB]
        references = session.exec(select(Reference).order_by(col(Reference.field))).all()
        assert [(row.kind, row.source_id, row.field, row.target_id) for row in references] == [
            ("Kiwi", KIWI, "members.agent", AGENT),
            ("Kiwi", KIWI, "members.zone", ZONE),
            ("Instance", INSTANCE, "volumes", VOLUME),
        ]
    store.dispose()


def old_kiwi(agent: str) -> bytes:
    """A Kiwi in the earlier encoding, with its agent in field 5."""
    encoded = kiwi_pb2.Kiwi(region=REGION, name="kiwi-1").SerializeToString()
    return encoded + (bytes([5 << 3 | 2, len(agent)]) + agent.encode() if agent else b"")


ROWS: list[tuple[str, str, bytes, dict[str, Any]]] = [
    ("region", REGION, b"", {"name": "eu"}),
    ("zone", ZONE, b"", {"region_id": REGION, "name": "eu-a"}),
    ("agent", AGENT, b"", {"name": "agent-1"}),
    ("kiwi", KIWI, old_kiwi(AGENT), {"region_id": REGION, "name": "kiwi-1", "agent_id": AGENT}),
    ("kiwi", UNBOUND, old_kiwi(""), {"region_id": REGION, "name": "kiwi-2", "agent_id": None}),
    ("project", PROJECT, b"", {"name": "shop"}),
    (
        "storagepool",
        POOL,
        storage_pool_pb2.StoragePool(region=REGION, name="local", driver="STORAGE_DRIVER_DIR").SerializeToString(),
        {"region_id": REGION, "name": "local"},
    ),
    (
        "instance",
        INSTANCE,
        instance_pb2.Instance(project=PROJECT, name="web", zone=ZONE, volumes=[VOLUME]).SerializeToString(),
        {"project_id": PROJECT, "name": "web", "zone_id": ZONE, "vcpus": 1, "memory": GIB},
    ),
    (
        "volume",
        VOLUME,
        volume_pb2.Volume(project=PROJECT, name="web-os", storage_pool=POOL, size=3 * GIB).SerializeToString(),
        {"project_id": PROJECT, "name": "web-os", "storage_pool_id": POOL, "instance_id": INSTANCE},
    ),
    ("vnet", VNET, vnet_pb2.Vnet(region=REGION, name="lan").SerializeToString(), {"region_id": REGION, "name": "lan"}),
]
