"""The batches an agent gets: the difference, stored whole or not at all; an omission destroys nothing."""

import asyncio
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from kahuna.store.resource import MAX_SPEC_BYTES
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused
from kowa.v2 import agent_pb2, instance_pb2, vnet_pb2
from tests.control_plane import GIB, FakeWorker
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import held, objects
from tests.fleet_resources import content
from tests.site import Site
from tests.ssh_keys import long_key
from tests.waiting import until

MIB = 1 << 20


def status(site: Site) -> agent_pb2.AgentStatus:
    return site.client.of(agent_pb2.Agent).get(site.agent.meta.id).status


def names(described: list[fleet_pb2.Object]) -> list[str]:
    """Kind and name of each object, like `vnet lan`."""
    return [f"{resources.noun_of(one.resource)} {content(one).name}" for one in described]


def test_the_slice_is_sent_with_referenced_objects_first(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    welcome = stream.sign_in()
    assert (welcome.kind, welcome.node) == ("Kaktus", site.host.meta.id)
    assert names(objects(stream.batch())) == [
        "region eu", "vnet lan", "zone eu-a", "subnet lan", "kaktus host-1", "storage_pool local", "template tiny",
    ]  # fmt: skip


def test_after_a_reconnect_only_the_difference_is_sent(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    incarnation = stream.sign_in().incarnation
    whole = stream.batch()
    stream.ack(whole)
    until(lambda: status(site).held_revision == whole[-1].revision, what="the ack")
    stream.close()

    reconnected = dial(site.secret)
    reconnected.sign_in(incarnation=incarnation, holdings=held(objects(whole)))
    until(lambda: status(site).epoch == 2 and status(site).held_revision > whole[-1].revision, what="in step")
    assert reconnected.receives_nothing()
    reconnected.close()

    site.vnet.description = "changed while it was offline"
    site.client.vnets.begin_update(site.vnet, ["description"])
    stream = dial(site.secret)
    stream.sign_in(incarnation=incarnation, holdings=held(objects(whole)))
    difference = stream.batch()
    assert names(objects(difference)) == ["vnet lan"]
    assert content(objects(difference)[0]).description == "changed while it was offline"
    assert sum(part.ByteSize() for part in difference) < 400


def test_objects_outside_the_slice_are_removed_at_the_reconnect(site: Site, dial: Dial) -> None:
    stream = dial(site.secret)
    incarnation = stream.sign_in().incarnation
    whole = objects(stream.batch())
    stream.close()
    ghost = fleet_pb2.Holding(id="00000000-0000-4000-8000-000000000000", generation=3)
    stream = dial(site.secret)
    stream.sign_in(incarnation=incarnation, holdings=[*held(whole), ghost])
    parts = stream.batch()
    assert (objects(parts), list(parts[-1].removed)) == ([], [ghost.id])


def test_a_refused_change_keeps_the_last_state_until_the_next_valid_change(site: Site) -> None:
    host = site.connect_host()
    before = host.wanted
    host.slice_error = "vnet dmz: no such bridge"
    site.client.vnets.begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="dmz"))
    until(lambda: status(site).refusal == "vnet dmz: no such bridge", what="the refusal")
    assert host.wanted == before
    stuck = status(site).held_revision
    host.slice_error = ""
    # The next change is of another object: the refused one is sent with it.
    site.vnet.description = "another change"
    site.client.vnets.begin_update(site.vnet, ["description"])
    until(lambda: status(site).refusal == "" and status(site).held_revision > stuck, what="the ack")
    until(lambda: "vnet dmz" in names(list(host.wanted.values())), what="the refused vnet")
    assert content(host.wanted[site.vnet.meta.id]).description == "another change"


def test_a_downgraded_agent_reports_its_refusal_until_the_resource_is_changed(
    site: Site,
) -> None:
    class OlderWorker(FakeWorker):
        def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
            if any(content(described).description == "too new" for described in desired.values()):
                raise Refused("vnet dmz: too new")

    task = site.cloud.dial(site.secret, FakeWorker())
    new = vnet_pb2.Vnet(region=site.region.meta.id, name="dmz", description="too new")
    dmz = site.client.vnets.create(new)
    until(lambda: status(site).held_revision >= dmz.meta.revision, what="the newer agent's ack")
    site.cloud.disconnect(task)
    host = OlderWorker()
    site.cloud.dial(site.secret, host)
    until(lambda: status(site).refusal == "vnet dmz: too new", what="the refusal")
    dmz.description = "as it was"
    site.client.vnets.begin_update(dmz, ["description"])
    until(lambda: not status(site).refusal, what="the ack")
    until(lambda: content(host.wanted[dmz.meta.id]).description == "as it was", what="the changed vnet")


def test_a_refused_batch_is_sent_again_after_the_retry_interval(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason may be gone by then, such as a full disk."""
    monkeypatch.setattr("kahuna.fleet.service.RETRY_INTERVAL_S", 0.2)
    host = site.connect_host()
    host.slice_error = "the disk is full"
    dmz = site.client.vnets.begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="dmz")).resource
    until(lambda: status(site).refusal, what="the refusal")
    host.slice_error = ""
    until(lambda: dmz.meta.id in host.wanted, what="the vnet")
    until(lambda: not status(site).refusal, what="no refusal")


def test_a_large_batch_is_sent_in_parts_and_stored_as_one(site: Site, dial: Dial) -> None:
    site.cloud.disconnect(_registered(site))
    with ThreadPoolExecutor(8) as many:
        instances = list(many.map(lambda number: _large(site, number), range(20)))
    stream = dial(site.secret)
    stream.sign_in()
    parts = stream.batch()
    assert len(parts) > 1
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len({part.nonce for part in parts}) == 1
    assert max(part.ByteSize() for part in parts) <= MIB
    sent = {described.id for described in objects(parts)}
    assert {instance.meta.id for instance in instances} <= sent
    stream.close()

    host = FakeWorker()
    host.frozen = {"instance"}
    site.cloud.dial(site.secret, host, state="fresh")
    sizes: set[int] = set()

    def whole() -> bool:
        sizes.add(len(host.wanted))
        return len(host.wanted) == len(sent)

    until(whole, what="the whole slice")
    assert sizes <= {0, len(sent)}


def _registered(site: Site) -> "asyncio.Task[None]":
    host = FakeWorker(cpus=64, memory=64 * GIB)
    task = site.cloud.dial(site.secret, host, state="first")
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    return task


def _large(site: Site, number: int) -> instance_pb2.Instance:
    wanted = site.wanted(f"m{number}")
    wanted.user_data = "#" * 65_536
    instance: instance_pb2.Instance = site.client.instances.begin_create(wanted).resource
    return instance


def test_an_object_of_the_largest_size_the_api_accepts_reaches_its_agent(site: Site) -> None:
    host = site.connect_host()
    wanted = site.wanted("big")
    wanted.ssh_keys.extend([long_key(8192)] * 64)
    name = 0
    while wanted.ByteSize() < MAX_SPEC_BYTES - 60_000:
        wanted.metadata[f"{(name := name + 1)}{'😀' * 4000}"] = "😀" * 4000
    wanted.user_data = "x" * (MAX_SPEC_BYTES - wanted.ByteSize() - 200)
    instance = site.client.instances.begin_create(wanted).resource
    until(lambda: instance.meta.id in host.wanted, what="the instance at its host")
    assert status(site).epoch == 1


@pytest.mark.slow
def test_after_a_restore_the_agent_drops_its_store_and_destroys_nothing(site: Site) -> None:
    """An instance created since the restored state is unknown to the database, and stays on its host."""
    host = site.connect_host()
    instance = site.client.instances.create(site.wanted("created-since"))
    site.cloud.stop()
    with sqlite3.connect(site.cloud.folder / "kahuna.db") as database:
        # A restored database has a new incarnation; the instance was never created in it.
        database.execute("UPDATE head SET incarnation = 'another incarnation'")
        database.execute("UPDATE volume SET instance_id = NULL")
        database.execute("UPDATE adapter SET instance_id = NULL")
        database.execute("DELETE FROM instance")
        database.execute("DELETE FROM operation")
    destroyed = []
    real_report = host._report

    def report(described: fleet_pb2.Object) -> fleet_pb2.Report:
        if described.gone:
            destroyed.append(described.id)
        return real_report(described)

    host._report = report  # type: ignore[method-assign]
    site.cloud.start()
    until(lambda: host.wanted and instance.meta.id not in host.wanted, what="the slice of the other incarnation")
    assert instance.volumes[0] in host.wanted
    assert destroyed == []
