"""Several writers of one database: a transaction never writes back values that another one has changed meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kahuna.kinds import deletion
from kahuna.kinds.adapter import Adapters
from kahuna.kinds.region import Region
from kahuna.kinds.storage_pool import StoragePool
from kahuna.kinds.tracking import Cause
from kahuna.store.transaction import StaleRead, Transaction
from kowa.v2 import adapter_pb2, operation_pb2, region_pb2, subnet_pb2
from tests.control_plane import ControlPlane, FakeWorker, control_plane
from tests.postgres import Postgres
from tests.site import make_site
from tests.waiting import until

pytestmark = pytest.mark.postgresql


@pytest.fixture
def cloud(tmp_path: Path, server: Postgres) -> Iterator[ControlPlane]:
    """A Kahuna on PostgreSQL; SQLite has only one writer."""
    with control_plane(tmp_path, server.database()) as cloud:
        yield cloud


@pytest.mark.parametrize("read_by", ["find", "get"])
def test_a_transaction_that_read_changed_values_is_run_again(cloud: ControlPlane, read_by: str) -> None:
    region = cloud.add_region()
    read, changed = threading.Event(), threading.Event()
    runs: list[str] = []

    def describe(tx: Transaction) -> None:
        row = tx.session.get(Region, region.meta.id)  # kept in a variable, since the session drops unreferenced rows
        found = tx.find("Region", region.meta.id)
        read.set()
        assert changed.wait(60)
        if read_by == "get":
            found = tx.get("Region", region.meta.id)
        assert isinstance(found, region_pb2.Region)
        runs.append(found.name)
        found.description = "described"
        tx.put("Region", found)
        assert row is not None

    slow = cloud.loop.start(cloud.kahuna.store.run(describe))
    assert read.wait(60)
    cloud.client.regions.update(region_pb2.Region(meta=region.meta, name="eu-west"))
    changed.set()
    until(slow.done, what="the slower transaction")
    now = cloud.client.regions.get(region.meta.id)
    assert (now.name, now.description) == ("eu-west", "described")
    assert runs == {"find": ["eu", "eu-west"], "get": ["eu-west"]}[read_by]


def test_a_lock_on_a_pool_does_not_block_changes_of_its_volumes(cloud: ControlPlane) -> None:
    """Otherwise each would wait for the other: one for the pool's lock, the other for its turn to commit."""
    site = make_site(cloud)
    volume = site.add_volume("data").resource
    locked, changed = threading.Event(), threading.Event()

    def lock_pool(tx: Transaction) -> bool:
        tx.find("StoragePool", site.pool.meta.id, StoragePool.lock_by_reference)
        locked.set()
        return changed.wait(10)

    locking = cloud.loop.start(cloud.kahuna.store.run(lock_pool))
    assert locked.wait(60)
    volume.description = "described"
    site.client.volumes.begin_update(volume, ["description"])
    changed.set()
    until(locking.done, what="the end of the other transaction")
    assert locking.result(), "the change of the volume waited for its pool"


@pytest.mark.parametrize("action", ["remove", "put"])
def test_a_transaction_that_read_a_row_deleted_since_is_run_again(cloud: ControlPlane, action: str) -> None:
    """As when two transactions remove the last children of a marked parent: the second finds the parent gone."""
    region = cloud.add_region()
    read, gone = threading.Event(), threading.Event()

    def work(tx: Transaction) -> str:
        found = tx.find("Region", region.meta.id)
        if not isinstance(found, region_pb2.Region):
            return "gone"
        read.set()
        assert gone.wait(60)
        found.description = "described"
        if action == "remove":
            tx.remove("Region", found.meta.id)
        else:
            tx.put("Region", found)
        return "there"

    slow = cloud.loop.start(cloud.kahuna.store.run(work))
    assert read.wait(60)
    cloud.client.regions.delete(region.meta.id)
    gone.set()
    until(slow.done, what="the slower transaction")
    assert slow.result() == "gone"


def test_an_address_of_a_run_that_did_not_commit_is_released(
    cloud: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(cloud)
    again, taken = threading.Event(), threading.Event()
    runs: list[str] = []
    before_create, lock = Adapters.before_create, Adapters._lock_references

    def fail_once(adapters: Adapters, tx: Transaction, resource: adapter_pb2.Adapter) -> None:
        before_create(adapters, tx, resource)
        if resource.name == "slow":
            runs.append(resource.address)
            if len(runs) == 1:
                raise StaleRead

    def wait_once(adapters: Adapters, tx: Transaction, cause: Cause, resource: adapter_pb2.Adapter) -> None:
        if resource.name == "slow" and runs:
            again.set()
            assert taken.wait(60)
        lock(adapters, tx, cause, resource)

    monkeypatch.setattr(Adapters, "before_create", fail_once)
    monkeypatch.setattr(Adapters, "_lock_references", wait_once)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(site.add_adapter, "slow")
        assert again.wait(60)
        fast = site.add_adapter("fast").resource
        taken.set()
        assert [fast.address, slow.result(60).resource.address] == ["10.20.0.2", "10.20.0.3"]
    assert runs == ["10.20.0.2", "10.20.0.3"]


def test_a_marked_parent_is_removed_when_two_transactions_removed_its_last_children_at_once(
    cloud: ControlPlane,
) -> None:
    site = make_site(cloud)
    agent = site.cloud.dial(site.secret, FakeWorker())
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    site.cloud.disconnect(agent)
    second = site.client.subnets.begin_create(subnet_pb2.Subnet(vnet=site.vnet.meta.id, name="b", cidr="10.21.0.0/24"))
    subnets = [site.subnet.meta.id, second.resource.meta.id]
    for subnet in subnets:
        site.client.subnets.begin_delete(subnet)
    started = site.client.vnets.begin_delete(site.vnet.meta.id)
    store, both = cloud.kahuna.store, threading.Barrier(2, timeout=60)
    gone = deletion.confirm_gone
    cloud.loop.run(store.run(lambda tx: gone(tx, "Vnet", site.vnet.meta.id, [site.agent.meta.id])))

    def confirm(subnet: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            gone(tx, "Subnet", subnet, [site.agent.meta.id])
            both.wait()

        return work

    for task in [cloud.loop.start(store.run(confirm(subnet))) for subnet in subnets]:
        until(task.done, what="both transactions")
    assert [vnet.name for vnet in site.client.vnets.list()] == ["lan"]
    store._clock = lambda: time.time_ns() // 1000 + 2 * deletion.RECHECK_AFTER_US
    cloud.loop.run(store.run(lambda tx: deletion.sweep_marked(tx, deletion.RECHECK_AFTER_US)))
    assert list(site.client.vnets.list()) == []
    assert site.client.operations.get(started.operation_id).phase == operation_pb2.PHASE_DONE
