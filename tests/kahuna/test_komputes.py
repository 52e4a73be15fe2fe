"""Komputes: an instance, its disks and its adapters in one call, all or nothing, in every client."""

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, col, select

from kahuna.kinds.tracking import Cause
from kahuna.store.tables import Audit
from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.client import Client
from kowa.v2 import (
    instance_pb2,
    kompute_pb2,
    meta_pb2,
    operation_pb2,
)
from tests.control_plane import GIB, TIMEOUT_S, ControlPlane, FakeWorker
from tests.kahuna.komputes import kinds_changed_since, parts, run_in_kahuna, wait_until_idle, wanted
from tests.kahuna.transports import TRANSPORTS, calling_through
from tests.site import Site, make_site
from tests.waiting import until

DONE, WAITING = operation_pb2.PHASE_DONE, operation_pb2.PHASE_WAITING


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_call_creates_all_parts_and_one_deletes_them(site: Site, transport: str, tmp_path: Path) -> None:
    site.connect_host()
    with calling_through(site, transport, tmp_path):
        site.client.komputes.begin_create(wanted(site, description="the shop", ssh_keys=[]))
        wait_until_idle(site)
        (web,) = site.client.komputes.list(filter='name = "web" AND status.power = running')
        assert site.client.komputes.get(web.meta.id) == web
        assert (web.meta.state, web.vcpus, web.disk) == (meta_pb2.STATE_READY, 1, GIB)
        assert list(web.status.addresses) == ["10.20.0.2", "10.20.0.9"]

        created = parts(site)
        assert list(created) == ["web", "web-data", "web-eth0", "web-eth1", "web-os"]
        assert {part.kompute for part in created.values()} == {web.meta.id}
        instance = created["web"]
        assert (instance.memory, instance.description, instance.zone) == (GIB, "the shop", web.zone)
        assert list(instance.volumes) == [created["web-os"].meta.id, created["web-data"].meta.id]
        assert list(instance.adapters) == [created["web-eth0"].meta.id, created["web-eth1"].meta.id]
        assert (created["web-os"].template, created["web-data"].template) == (web.template, "")
        assert {part.meta.state for part in created.values()} == {meta_pb2.STATE_READY}

        web.disk, web.description = 4 * GIB, "the old shop"
        site.client.komputes.begin_update(web, ["disk", "description"])
        wait_until_idle(site)
        assert (parts(site)["web-os"].size, parts(site)["web"].description) == (4 * GIB, "the old shop")

        site.client.komputes.begin_delete(web.meta.id)
        until(lambda: not list(site.client.komputes.list()), what="the end of the kompute")
        assert parts(site) == {}


def test_creating_a_kompute_records_operations_and_audit_entries_of_its_parts(site: Site) -> None:
    site.connect_host()
    web = site.client.komputes.create(wanted(site, data_disk=0, adapters=[]))
    assert {operation.phase for operation in site.client.operations.list(filter=f"project = {web.project}")} == {DONE}
    with Session(site.cloud.kahuna.store.engine) as session:
        trail = session.exec(select(Audit).where(Audit.project == web.project).order_by(col(Audit.id))).all()
    calls = [(entry.method, entry.caller) for entry in trail][-3:]
    assert calls == [(f"Create{kind}", calls[0][1]) for kind in ("Volume", "Instance", "Kompute")]


def test_an_update_of_a_kompute_changes_and_renames_its_parts(site: Site) -> None:
    site.connect_host()
    web = site.client.komputes.create(wanted(site))
    generations = {name: part.meta.generation for name, part in parts(site).items()}
    web.name, web.vcpus, web.memory, web.data_disk = "shop", 2, 2 * GIB, 3 * GIB
    web.metadata["role"] = "shop"
    web = site.client.komputes.update(web, ["name", "vcpus", "memory", "data_disk", "metadata"])
    assert (web.meta.generation, web.meta.state) == (2, meta_pb2.STATE_READY)
    changed = parts(site)
    assert list(changed) == ["shop", "shop-data", "shop-eth0", "shop-eth1", "shop-os"]
    assert {part.meta.generation - 1 for part in changed.values()} == set(generations.values())
    instance = changed["shop"]
    assert (instance.vcpus, instance.memory, dict(instance.metadata)) == (2, 2 * GIB, {"role": "shop"})
    assert (changed["shop-os"].size, changed["shop-data"].size) == (GIB, 3 * GIB)
    # A change that no part takes over is done at once.
    web.labels["env"] = "prod"
    labelled = site.client.komputes.begin_update(web, ["labels"])
    assert labelled.resource.meta.state == meta_pb2.STATE_READY
    assert site.client.operations.get(labelled.operation_id).phase == DONE
    assert parts(site) == changed


def test_fields_of_a_part_that_its_kompute_sets_are_changed_through_the_kompute_only(site: Site) -> None:
    site.connect_host()
    site.client.komputes.create(wanted(site))
    created, client = parts(site), site.client
    revision = wait_until_idle(site)
    for kind, name, field, value, remedy in [
        ("instances", "web", "vcpus", 4, "change its vcpus"),
        ("instances", "web", "name", "db", "change its name"),
        ("volumes", "web-data", "size", 8 * GIB, "change its data_disk"),
        ("adapters", "web-eth0", "name", "eth0", "change its name"),
    ]:
        part = created[name]
        with pytest.raises(errors.KowaError) as refused:
            getattr(client, kind).begin_update(type(part)(meta=part.meta, **{field: value}), [field])
        assert refused.value.reason == "IN_USE"
        assert f"{field}: is as kompute web says, of which this is a part; {remedy}" in refused.value.message
        with pytest.raises(errors.KowaError, match=f"{name} is a part of kompute web; delete that") as refused:
            getattr(client, kind).begin_delete(part.meta.id)
        assert refused.value.reason == "IN_USE"
    assert kinds_changed_since(site, revision) == []
    # The other fields of a part can be changed.
    disk = created["web-os"]
    disk.description = "boots"
    assert client.volumes.update(disk, ["description", "name"]).description == "boots"
    client.instances.stop(created["web"].meta.id)
    (web,) = client.komputes.list()
    assert (web.status.power, web.meta.state) == (instance_pb2.POWER_STOPPED, meta_pb2.STATE_READY)


def test_a_kompute_waits_for_its_offline_host_and_can_be_deleted_meanwhile(site: Site) -> None:
    client, agent = site.client, site.cloud.dial(site.secret, FakeWorker())
    until(lambda: client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    site.cloud.disconnect(agent)
    until(lambda: not site.cloud.fleet_sessions(), what="the end of the session")
    creating = client.komputes.begin_create(wanted(site))
    assert creating.resource.meta.state == meta_pb2.STATE_PENDING
    waiting = client.operations.get(creating.operation_id)
    assert (waiting.phase, waiting.message.partition(":")[0]) == (WAITING, "HOST_OFFLINE")

    deleting = client.komputes.begin_delete(creating.resource.meta.id)
    assert client.operations.get(creating.operation_id).phase == operation_pb2.PHASE_SUPERSEDED
    states = {part.meta.state for part in [*parts(site).values(), *client.komputes.list()]}
    assert states == {meta_pb2.STATE_DELETING}
    again = client.komputes.begin_create(wanted(site, adapters=[]))  # its name is free at once
    client.komputes.begin_delete(creating.resource.meta.id)
    waiting = client.operations.get(deleting.operation_id)
    assert (waiting.phase, waiting.message.partition(":")[0]) == (WAITING, "HOST_OFFLINE")

    site.connect_host()
    for operation in (deleting, again):
        assert client.operations.wait(operation.operation_id, TIMEOUT_S).phase == DONE
    assert [kompute.meta.id for kompute in client.komputes.list()] == [again.resource.meta.id]
    assert list(parts(site)) == ["web", "web-data", "web-os"]


def test_a_kompute_that_was_never_sent_to_a_host_is_deleted_at_once(site: Site) -> None:
    run_in_kahuna(site, lambda tx: _report_capacity(tx, site))
    started = site.client.komputes.begin_create(wanted(site))
    deleting = site.client.komputes.begin_delete(started.resource.meta.id)
    assert site.client.operations.get(deleting.operation_id).phase == DONE
    assert parts(site) == {}
    assert list(site.client.komputes.list()) == []


def _report_capacity(tx: Transaction, site: Site) -> None:
    host: Any = tx.get("Kaktus", site.host.meta.id)
    host.status.cpus, host.status.memory = 8, 16 * GIB
    tx.report("Kaktus", host)


def test_a_failing_part_fails_the_kompute_with_its_message(site: Site) -> None:
    host = FakeWorker()
    host.frozen |= {"volume", "instance"}
    site.connect_host(host)
    started = site.client.komputes.begin_create(wanted(site))
    disk = parts(site)["web-os"]
    host.failures[disk.meta.id] = "the pool is full"
    host.frozen.clear()
    with pytest.raises(errors.OperationFailed, match="CreateKompute web failed: volume web-os: the pool is full"):
        site.client.operations.wait(started.operation_id, TIMEOUT_S)
    web = site.client.komputes.get(started.resource.meta.id)
    assert web.meta.state == meta_pb2.STATE_ERROR
    assert [condition.message for condition in web.meta.conditions] == ["volume web-os: the pool is full"]
    host.failures.clear()
    until(lambda: site.client.komputes.get(web.meta.id).meta.state == meta_pb2.STATE_READY, what="the repaired kompute")
    assert list(site.client.komputes.get(web.meta.id).meta.conditions) == []


def test_a_watch_of_komputes_sends_changes_of_their_parts(site: Site) -> None:
    site.connect_host()
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with (
        ThreadPoolExecutor(1) as watching,
        Client(site.cloud.settings.api, key=site.cloud.key, insecure=True) as client,
    ):

        def watch() -> None:
            for event in client.of(kompute_pb2.Kompute).watch(filter="vcpus = 1"):
                events.put(event)

        watching.submit(watch)
        assert events.get(timeout=TIMEOUT_S).change == "synced"

        def wait_for(matches: Callable[[Any], bool], what: str) -> None:
            until(lambda: any(matches(events.get(timeout=TIMEOUT_S)) for _ in range(1)), what=what)

        web = site.client.komputes.create(wanted(site))
        wait_for(
            lambda event: event.resource and event.resource.meta.state == meta_pb2.STATE_READY,
            "the ready kompute",
        )
        (instance,) = site.client.instances.list()
        site.client.instances.stop(instance.meta.id)
        stopped = instance_pb2.POWER_STOPPED
        wait_for(lambda event: event.resource and event.resource.status.power == stopped, "the stopped instance")
        web.vcpus = 2
        site.client.komputes.update(web, ["vcpus"])
        wait_for(lambda event: event.change == "removed", "the kompute that no longer matches")
        client.close()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_plan_creates_nothing_and_a_repeated_request_creates_no_second_kompute(site: Site) -> None:
    site.connect_host()
    revision = wait_until_idle(site)
    planned = site.client.komputes.plan_create(wanted(site))
    assert list(planned.status.addresses) == ["10.20.0.2", "10.20.0.9"]
    assert (kinds_changed_since(site, revision), parts(site)) == ([], {})
    first, again = (site.client.komputes.begin_create(wanted(site), request_id="one") for _ in range(2))
    assert (first.operation_id, first.resource.meta.id) == (again.operation_id, again.resource.meta.id)
    assert len(parts(site)) == 5


def test_ensuring_a_kompute_inside_kahuna_is_idempotent(site: Site) -> None:
    """It creates the kompute, then changes nothing, then updates the changed field."""
    site.connect_host()
    komputes = site.cloud.kahuna.kinds["Kompute"]
    cause = Cause("CreateKompute", "timer", "every night")
    first = run_in_kahuna(site, lambda tx: komputes.ensure(tx, cause, wanted(site)))
    revision = wait_until_idle(site)
    assert run_in_kahuna(site, lambda tx: komputes.ensure(tx, cause, wanted(site))).operation is None
    assert kinds_changed_since(site, revision) == []
    grown = run_in_kahuna(site, lambda tx: komputes.ensure(tx, cause, wanted(site, vcpus=3)))
    assert (grown.resource.meta.id, grown.operation.caller) == (first.resource.meta.id, "timer")
    assert parts(site)["web"].vcpus == 3
