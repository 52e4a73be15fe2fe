"""From a region to a running machine, with a host that only pretends."""

from kowa.v2 import (
    adapter_pb2,
    agent_pb2,
    instance_pb2,
    meta_pb2,
    operation_pb2,
    project_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
)

from tests.waiting import until
from tests.world import GIB, PretendHost, World


def machine(cloud: World, name: str = "web", memory: int = GIB) -> instance_pb2.Instance:
    """All that a machine needs, on one host, and the machine, not waited for."""
    client = cloud.client
    region = cloud.region()
    zone = cloud.zone(region)
    agent, cloud.secret = cloud.agent()  # type: ignore[attr-defined]
    host = cloud.host(zone, agent=agent.meta.id)
    pool = client.storage_pools.begin_create(
        storage_pool_pb2.StoragePool(
            region=region.meta.id, name="local", driver=storage_pool_pb2.STORAGE_DRIVER_DIR, kaktus=host.meta.id
        )
    ).resource
    template = client.templates.begin_create(
        template_pb2.Template(storage_pool=pool.meta.id, name="tiny", source="tiny.qcow2", sha256="0" * 64)
    ).resource
    vnet = client.vnets.create(vnet_pb2.Vnet(region=region.meta.id, name="lan"))
    subnet = client.subnets.create(subnet_pb2.Subnet(vnet=vnet.meta.id, name="lan", cidr="10.20.0.0/24"))
    project = client.projects.create(project_pb2.Project(name="shop"))
    volume = client.volumes.begin_create(
        volume_pb2.Volume(
            project=project.meta.id, name="web-os", storage_pool=pool.meta.id, template=template.meta.id, size=GIB
        )
    ).resource
    adapter = client.adapters.begin_create(
        adapter_pb2.Adapter(project=project.meta.id, name="web-eth0", subnet=subnet.meta.id)
    ).resource
    return instance_pb2.Instance(
        project=project.meta.id, name=name, zone=zone.meta.id, vcpus=1, memory=memory,
        volumes=[volume.meta.id], adapters=[adapter.meta.id],
    )  # fmt: skip


def test_from_region_to_running(cloud: World) -> None:
    wanted = machine(cloud)
    client = cloud.client
    agent = cloud.dial(cloud.secret, PretendHost())
    until(lambda: next(client.kaktuses.list()).status.memory, what="the host's capacity")
    web = client.instances.create(wanted)
    assert web.meta.state == meta_pb2.STATE_READY
    assert web.status.power == instance_pb2.POWER_RUNNING
    assert web.kaktus == next(client.kaktuses.list()).meta.id
    assert client.adapters.get(web.adapters[0]).address == "10.20.0.2"

    stopped = client.instances.stop(web.meta.id)
    assert stopped.status.power == instance_pb2.POWER_STOPPED
    assert [operation.phase for operation in client.operations.list(filter='target_kind = "Instance"')] == [
        operation_pb2.PHASE_DONE
    ] * 2

    cloud.hang_up(agent)
    until(lambda: next(client.agents.list()).status.stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")
    # Deleted in a row with the agent stopped, and made again under the same names.
    adapter, volume = web.adapters[0], web.volumes[0]
    subnet = client.adapters.get(adapter).subnet
    vnet = client.subnets.get(subnet).vnet
    begun = [
        client.instances.begin_delete(web.meta.id),
        client.volumes.begin_delete(volume),
        client.adapters.begin_delete(adapter),
        client.subnets.begin_delete(subnet),
        client.vnets.begin_delete(vnet),
    ]
    assert client.instances.get(web.meta.id).meta.state == meta_pb2.STATE_DELETING
    waiting = client.operations.get(begun[0].operation_id)
    assert waiting.phase == operation_pb2.PHASE_WAITING
    assert "HOST_OFFLINE" in waiting.message
    again = client.vnets.begin_create(vnet_pb2.Vnet(region=next(client.regions.list()).meta.id, name="lan")).resource
    client.subnets.begin_create(subnet_pb2.Subnet(vnet=again.meta.id, name="lan", cidr="10.20.0.0/24"))

    cloud.dial(cloud.secret, PretendHost())
    for deletion in begun:
        assert client.operations.wait(deletion.operation_id, 10).phase == operation_pb2.PHASE_DONE
    assert not list(client.instances.list())
    assert not list(client.volumes.list())
    assert not list(client.adapters.list())
    assert [vnet.meta.id for vnet in client.vnets.list()] == [again.meta.id]


def test_kahuna_restarts_and_nothing_is_lost(cloud: World) -> None:
    wanted = machine(cloud)
    host = PretendHost()
    cloud.dial(cloud.secret, host)
    until(lambda: next(cloud.client.kaktuses.list()).status.memory, what="the host's capacity")
    web = cloud.client.instances.create(wanted)
    before = next(cloud.client.agents.list()).status.epoch
    cloud.stop()
    cloud.start()
    client = cloud.client
    assert client.instances.get(web.meta.id).meta.id == web.meta.id
    until(lambda: next(client.agents.list()).status.epoch > before, what="a new session")
    client.instances.stop(web.meta.id)
    assert client.instances.get(web.meta.id).status.power == instance_pb2.POWER_STOPPED
