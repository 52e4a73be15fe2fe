"""Retention: requests are kept for a day, ended operations for a month, the audit trail for more than a year."""

import json
import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, select

from kahuna.kinds import tracking
from kahuna.maintenance import show_audit_trail
from kahuna.store.database import Store
from kahuna.store.tables import DAY_US, Audit, Request
from kahuna.store.transaction import prune
from kowa.client import Client
from kowa.v2 import region_pb2
from tests.control_plane import ControlPlane

NOW = time.time_ns() // 1000


def counts(store: Store) -> tuple[int, int, int]:
    """The numbers of requests, operations and entries of the audit trail."""
    with Session(store.engine) as session:
        tables = Request, tracking.Operation, Audit
        requests, operations, trail = (len(session.exec(select(table)).all()) for table in tables)
    # Without the entry of the generated admin key.
    return requests, operations, trail - 1


@pytest.mark.parametrize(
    ("days", "remaining"), [(0.9, (2, 2, 2)), (1.1, (0, 2, 2)), (29, (0, 2, 2)), (31, (0, 0, 2)), (399, (0, 0, 2))]
)
def test_requests_and_operations_are_deleted_after_their_retention(
    cloud: ControlPlane, days: float, remaining: tuple[int, int, int]
) -> None:
    region = cloud.add_region()
    cloud.client.regions.update(region_pb2.Region(meta=region.meta, description="the first"), ["description"])
    store = cloud.kahuna.store
    assert counts(store) == (2, 2, 2)
    store._clock = lambda: NOW + int(days * DAY_US)
    cloud.loop.run(store.run(prune))
    assert cloud.loop.run(store.run(tracking.prune)) is False
    assert counts(store) == remaining
    assert [region.name for region in cloud.client.regions.list()] == ["eu"]


def test_audit_entries_cannot_be_changed_or_deleted_before_their_time(cloud: ControlPlane) -> None:
    cloud.add_region()
    store = cloud.kahuna.store
    for statement in ("UPDATE audit SET caller = 'nobody'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="the audit trail is"), store.engine.begin() as connection:
            connection.execute(text(statement))
    with store.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO audit SELECT 99, 1, caller, method, '', '', '', '', '', '' FROM audit LIMIT 1")
        )
        connection.execute(text("DELETE FROM audit WHERE id = 99"))
    assert counts(store)[2] == 1


def test_the_audit_trail_can_be_read_while_kahuna_runs(cloud: ControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    region = cloud.add_region()
    with Client(cloud.settings.api, key=cloud.key, insecure=True, reason="moved out") as client:
        client.regions.delete(region.meta.id)
    capsys.readouterr()
    show_audit_trail(cloud.settings, region.meta.id, days=1)
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(entry["method"], entry["caller"], entry["target_name"], entry.get("reason")) for entry in logged] == [
        ("CreateRegion", "admin", "eu", None),
        ("DeleteRegion", "admin", "eu", "moved out"),
    ]


def test_the_log_in_memory_keeps_no_contents_of_older_changes(cloud: ControlPlane) -> None:
    region = cloud.add_region()
    for number in range(3):
        region.description = f"{number}"
        region = cloud.client.regions.update(region, ["description"])
    view = cloud.kahuna.store.view
    changes = [change for change in view._tail if change.id == region.meta.id]
    assert [change.entry for change in changes] == [None] * 4
    assert cloud.client.regions.get(region.meta.id).description == "2"
