"""From a region to a running instance, with a fake worker."""

import queue
from concurrent.futures import ThreadPoolExecutor

import pytest

from kowa import errors
from kowa.client import Client
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, instance_pb2, meta_pb2, operation_pb2, subnet_pb2, vnet_pb2
from tests.control_plane import TIMEOUT_S, ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


def test_an_instance_is_created_started_and_stopped(site: Site) -> None:
    site.connect_host()
    client = site.client
    web = client.instances.create(site.wanted("web"))
    assert web.meta.state == meta_pb2.STATE_READY
    assert web.status.power == instance_pb2.POWER_RUNNING
    assert web.kaktus == site.host.meta.id
    assert client.adapters.get(web.adapters[0]).address == "10.20.0.2"
    assert client.instances.stop(web.meta.id).status.power == instance_pb2.POWER_STOPPED
    phases = {operation.phase for operation in client.operations.list(filter='target_kind = "Instance"')}
    assert phases == {operation_pb2.PHASE_DONE}


def test_resources_deleted_while_their_host_is_offline_can_be_created_again(site: Site) -> None:
    client = site.client
    agent = site.cloud.dial(site.secret, FakeWorker())
    until(lambda: client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = client.instances.create(site.wanted("web"))
    site.cloud.disconnect(agent)
    until(lambda: client.agents.get(site.agent.meta.id).status.stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")
    deletions = [
        client.instances.begin_delete(web.meta.id),
        client.volumes.begin_delete(web.volumes[0]),
        client.adapters.begin_delete(web.adapters[0]),
        client.subnets.begin_delete(site.subnet.meta.id),
        client.vnets.begin_delete(site.vnet.meta.id),
    ]
    assert client.instances.get(web.meta.id).meta.state == meta_pb2.STATE_DELETING
    waiting = client.operations.get(deletions[0].operation_id)
    assert (waiting.phase, waiting.message.partition(":")[0]) == (operation_pb2.PHASE_WAITING, "HOST_OFFLINE")
    again = client.vnets.begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="lan")).resource
    client.subnets.begin_create(subnet_pb2.Subnet(vnet=again.meta.id, name="lan", cidr="10.20.0.0/24"))

    site.cloud.dial(site.secret, FakeWorker())
    for deletion in deletions:
        assert client.operations.wait(deletion.operation_id, 60).phase == operation_pb2.PHASE_DONE
    assert [len(list(kind.list())) for kind in (client.instances, client.volumes, client.adapters)] == [0, 0, 0]
    assert [vnet.meta.id for vnet in client.vnets.list()] == [again.meta.id]


@pytest.mark.slow
def test_resources_and_sessions_survive_a_restart_of_kahuna(site: Site) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    before = site.client.agents.get(site.agent.meta.id).status.epoch
    site.cloud.stop()
    site.cloud.start()
    assert site.client.instances.get(web.meta.id).name == "web"
    until(lambda: site.client.agents.get(site.agent.meta.id).status.epoch > before, what="a new session")
    site.client.instances.stop(web.meta.id)
    assert site.client.instances.get(web.meta.id).status.power == instance_pb2.POWER_STOPPED


@pytest.mark.slow
def test_a_wait_and_a_watch_go_on_after_a_restart(site: Site) -> None:
    host = FakeWorker()
    host.frozen.add("instance")
    site.connect_host(host)
    with (
        ThreadPoolExecutor(2) as programs,
        Client(site.cloud.settings.api, key=site.cloud.key, insecure=True) as client,
    ):
        events: queue.SimpleQueue[str] = queue.SimpleQueue()

        def watch() -> None:
            for event in client.of(instance_pb2.Instance).watch():
                events.put(event.resource.name if event.resource else event.change)

        watching = programs.submit(watch)
        assert events.get(timeout=TIMEOUT_S) == "synced"
        started = site.add_instance("web")
        waiting = programs.submit(client.operations.wait, started.operation_id, TIMEOUT_S)
        assert [events.get(timeout=TIMEOUT_S) for _ in range(2)] == ["web", "synced"]
        site.cloud.stop()
        site.cloud.start()
        host.frozen.clear()
        assert waiting.result(TIMEOUT_S).phase == operation_pb2.PHASE_DONE
        assert "web" in iter(lambda: events.get(timeout=TIMEOUT_S), "")
        client.close()
        with pytest.raises(errors.Closed):
            watching.result(TIMEOUT_S)


def test_creating_an_instance_on_an_offline_host_waits_with_the_reason(site: Site) -> None:
    agent = site.cloud.dial(site.secret, FakeWorker())
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    site.cloud.disconnect(agent)
    until(lambda: site.client.agents.get(site.agent.meta.id).status.stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")
    started = site.add_instance("web")
    assert started.resource.meta.state == meta_pb2.STATE_PENDING
    operation = site.client.operations.get(started.operation_id)
    assert (operation.phase, operation.message.partition(":")[0]) == (operation_pb2.PHASE_WAITING, "HOST_OFFLINE")
    site.connect_host()
    assert site.client.operations.wait(started.operation_id, 60).phase == operation_pb2.PHASE_DONE


def test_a_failing_agent_fails_the_operation_and_a_later_change_supersedes_an_earlier_one(site: Site) -> None:
    host = FakeWorker()
    host.frozen.add("instance")
    site.connect_host(host)
    create = site.add_instance("web")
    stop = site.client.instances.begin("stop", create.resource.meta.id)
    superseded = site.client.operations.get(create.operation_id)
    assert superseded.phase == operation_pb2.PHASE_SUPERSEDED
    host.failures[create.resource.meta.id] = "the disk is gone"
    host.frozen.clear()
    until(
        lambda: site.client.operations.get(stop.operation_id).phase == operation_pb2.PHASE_FAILED,
        what="the failed operation",
    )
    assert site.client.operations.get(stop.operation_id).message == "the disk is gone"
    web = site.client.instances.get(create.resource.meta.id)
    assert web.meta.state == meta_pb2.STATE_ERROR
    assert [condition.message for condition in web.meta.conditions] == ["the disk is gone"]
    # A new change makes the agent try again.
    host.failures.clear()
    again = site.client.instances.begin("stop", web.meta.id)
    assert site.client.operations.wait(again.operation_id, 60).phase == operation_pb2.PHASE_DONE
    # A deletion supersedes changes in progress.
    site.client.instances.delete(web.meta.id, limit=60)
    assert not list(site.client.instances.list())


def test_reports_of_a_stopped_guest_are_stored_while_it_is_being_deleted(site: Site) -> None:
    class SlowWorker(FakeWorker):
        """Reports no object as gone."""

        def _report(self, described: fleet_pb2.Object) -> fleet_pb2.Report:
            report = super()._report(described)
            report.gone = False
            return report

    host = SlowWorker()
    site.connect_host(host)
    web = site.client.instances.create(site.wanted("web"))
    host.frozen.add("instance")
    site.client.instances.begin_delete(web.meta.id)
    until(lambda: host.wanted[web.meta.id].gone, what="the deletion at the host")
    host.powered_off.add(web.meta.id)
    host.frozen.clear()
    until(lambda: site.client.instances.get(web.meta.id).meta.conditions, what="the report of the stopped guest")


def test_an_instance_stays_stopped_after_its_guest_powered_off(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    host.powered_off.add(web.meta.id)
    until(
        lambda: site.client.instances.get(web.meta.id).power == instance_pb2.POWER_STOPPED,
        what="the desired power to follow the guest",
    )
    started = site.client.instances.begin("start", web.meta.id)
    host.powered_off.clear()
    assert site.client.operations.wait(started.operation_id, 60).phase == operation_pb2.PHASE_DONE
