"""What an agent is told: the difference, whole or not at all, and never anything that destroys by omission."""

import asyncio
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused
from kowa.v2 import agent_pb2, instance_pb2, vnet_pb2
from tests.control_plane import GIB, FakeHost
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
    """What objects are, for reading: `vnet lan`."""
    return [f"{resources.noun_of(one.resource)} {content(one).name}" for one in described]


def test_the_whole_slice_comes_in_the_order_it_must_be_known(site: Site, dial: Dial) -> None:
    line = dial(site.secret)
    welcome = line.sign_in()
    assert (welcome.kind, welcome.node) == ("Kaktus", site.host.meta.id)
    assert names(objects(line.batch())) == [
        "region eu", "vnet lan", "zone eu-a", "subnet lan", "kaktus host-1", "storage_pool local", "template tiny",
    ]  # fmt: skip


def test_after_a_reconnect_only_the_difference_comes(site: Site, dial: Dial) -> None:
    line = dial(site.secret)
    incarnation = line.sign_in().incarnation
    whole = line.batch()
    line.ack(whole)
    until(lambda: status(site).held_revision == whole[-1].revision, what="the ack")
    line.close()

    same = dial(site.secret)
    same.sign_in(incarnation=incarnation, holdings=held(objects(whole)))
    until(lambda: status(site).epoch == 2 and status(site).held_revision > whole[-1].revision, what="in step")
    assert same.receives_nothing()
    same.close()

    site.vnet.description = "changed while it was away"
    site.client.vnets.begin_update(site.vnet, ["description"])
    line = dial(site.secret)
    line.sign_in(incarnation=incarnation, holdings=held(objects(whole)))
    difference = line.batch()
    assert names(objects(difference)) == ["vnet lan"]
    assert content(objects(difference)[0]).description == "changed while it was away"
    assert sum(part.ByteSize() for part in difference) < 400


def test_what_concerns_an_agent_no_more_is_removed_at_the_reconnect(site: Site, dial: Dial) -> None:
    line = dial(site.secret)
    incarnation = line.sign_in().incarnation
    whole = objects(line.batch())
    line.close()
    ghost = fleet_pb2.Holding(id="00000000-0000-4000-8000-000000000000", generation=3)
    line = dial(site.secret)
    line.sign_in(incarnation=incarnation, holdings=[*held(whole), ghost])
    told = line.batch()
    assert (objects(told), list(told[-1].removed)) == ([], [ghost.id])


def test_a_refused_change_keeps_the_last_state_and_the_next_good_one_heals_it(site: Site) -> None:
    host = site.connect_host()
    before = host.wanted
    host.refuses = "vnet dmz: no such bridge"
    site.client.vnets.begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="dmz"))
    until(lambda: status(site).refusal == "vnet dmz: no such bridge", what="the refusal")
    assert host.wanted == before
    stuck = status(site).held_revision
    host.refuses = ""
    # The next change is of something else: what was refused comes with it.
    site.vnet.description = "another change"
    site.client.vnets.begin_update(site.vnet, ["description"])
    until(lambda: status(site).refusal == "" and status(site).held_revision > stuck, what="the healing")
    until(lambda: "vnet dmz" in names(list(host.wanted.values())), what="what was refused")
    assert content(host.wanted[site.vnet.meta.id]).description == "another change"


def test_an_agent_that_was_put_back_to_an_older_version_says_what_it_does_not_take_until_that_is_mended(
    site: Site,
) -> None:
    class Older(FakeHost):
        def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
            if any(content(described).description == "too new" for described in desired.values()):
                raise Refused("vnet dmz: too new")

    task = site.cloud.dial(site.secret, FakeHost())
    new = vnet_pb2.Vnet(region=site.region.meta.id, name="dmz", description="too new")
    dmz = site.client.vnets.create(new)
    until(lambda: status(site).held_revision >= dmz.meta.revision, what="it held")
    site.cloud.disconnect(task)
    host = Older()
    site.cloud.dial(site.secret, host)
    until(lambda: status(site).refusal == "vnet dmz: too new", what="the refusal")
    dmz.description = "as it was"
    site.client.vnets.begin_update(dmz, ["description"])
    until(lambda: not status(site).refusal, what="the healing")
    until(lambda: content(host.wanted[dmz.meta.id]).description == "as it was", what="the better one")


def test_what_was_refused_is_sent_again_after_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason may have gone by itself: a disk that was full."""
    monkeypatch.setattr("kahuna.fleet.service.RETRY_INTERVAL_S", 0.2)
    host = site.connect_host()
    host.refuses = "the disk is full"
    dmz = site.client.vnets.begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="dmz")).resource
    until(lambda: status(site).refusal, what="the refusal")
    host.refuses = ""
    until(lambda: dmz.meta.id in host.wanted, what="the vnet")
    until(lambda: not status(site).refusal, what="no refusal")


def test_a_large_set_comes_in_parts_and_counts_as_one(site: Site, dial: Dial) -> None:
    site.cloud.disconnect(_registered(site))
    with ThreadPoolExecutor(8) as many:
        machines = list(many.map(lambda number: _large(site, number), range(20)))
    line = dial(site.secret)
    line.sign_in()
    parts = line.batch()
    assert len(parts) > 1
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len({part.nonce for part in parts}) == 1
    assert max(part.ByteSize() for part in parts) <= MIB
    sent = {described.id for described in objects(parts)}
    assert {machine.meta.id for machine in machines} <= sent
    line.close()

    host = FakeHost()
    host.frozen = {"instance"}
    site.cloud.dial(site.secret, host, state="fresh")
    sizes: set[int] = set()

    def whole() -> bool:
        sizes.add(len(host.wanted))
        return len(host.wanted) == len(sent)

    until(whole, what="the whole set")
    assert sizes <= {0, len(sent)}


def _registered(site: Site) -> "asyncio.Task[None]":
    host = FakeHost(cpus=64, memory=64 * GIB)
    task = site.cloud.dial(site.secret, host, state="first")
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    return task


def _large(site: Site, number: int) -> instance_pb2.Instance:
    wanted = site.wanted(f"m{number}")
    wanted.user_data = "#" * 65_536
    made: instance_pb2.Instance = site.client.instances.begin_create(wanted).resource
    return made


def test_an_object_as_large_as_the_api_takes_reaches_its_agent(site: Site) -> None:
    host = site.connect_host()
    wanted = site.wanted("big")
    wanted.ssh_keys.extend([long_key(8192)] * 64)
    wanted.metadata.update({f"{name}{'😀' * 4000}": "😀" * 4000 for name in range(64)})
    wanted.user_data = "x" * (4 * MIB - wanted.ByteSize() - 200)
    made = site.client.instances.begin_create(wanted).resource
    until(lambda: made.meta.id in host.wanted, what="the machine at its host")
    assert status(site).epoch == 1


@pytest.mark.slow
def test_after_a_restore_the_agent_drops_its_store_and_destroys_nothing(site: Site) -> None:
    """The database is put back to an earlier day: what was made since is unknown to it, and stays on its host."""
    host = site.connect_host()
    made = site.client.instances.create(site.wanted("made-since"))
    site.cloud.stop()
    with sqlite3.connect(site.cloud.folder / "kahuna.db") as database:
        # What a restore does: a new life of the store, in which the machine was never asked for.
        database.execute("UPDATE head SET incarnation = 'another life'")
        database.execute("UPDATE volume SET instance_id = NULL")
        database.execute("UPDATE adapter SET instance_id = NULL")
        database.execute("DELETE FROM instance")
        database.execute("DELETE FROM operation")
    destroyed = []
    note = host._report

    def report(described: fleet_pb2.Object) -> fleet_pb2.Report:
        if described.gone:
            destroyed.append(described.id)
        return note(described)

    host._report = report  # type: ignore[method-assign]
    site.cloud.start()
    until(lambda: host.wanted and made.meta.id not in host.wanted, what="the slice of the other life")
    assert made.volumes[0] in host.wanted
    assert destroyed == []
