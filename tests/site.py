"""A small site, made through the API: what instances need, by one call each."""

from dataclasses import dataclass
from typing import cast

from kowa.calls import Begun
from kowa.client import Client
from kowa.v2 import (
    adapter_pb2,
    agent_pb2,
    instance_pb2,
    kaktus_pb2,
    project_pb2,
    region_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
    zone_pb2,
)
from tests.clients import ResourceClient
from tests.control_plane import GIB, ControlPlane, FakeHost
from tests.waiting import until


@dataclass
class Site:
    """One region, zone, host with a dir pool and a template, a network, a project."""

    cloud: ControlPlane
    region: region_pb2.Region
    zone: zone_pb2.Zone
    agent: agent_pb2.Agent
    secret: str
    host: kaktus_pb2.Kaktus
    pool: storage_pool_pb2.StoragePool
    template: template_pb2.Template
    vnet: vnet_pb2.Vnet
    subnet: subnet_pb2.Subnet
    project: project_pb2.Project

    other_client: ResourceClient | None = None

    @property
    def client(self) -> Client:
        """Of the control plane, after a restart the new one; or the other client in its place."""
        return cast(Client, self.other_client) if self.other_client else self.cloud.client

    def volume(self, name: str, size: int = GIB) -> Begun[volume_pb2.Volume]:
        """A disk from the template."""
        wanted = volume_pb2.Volume(
            project=self.project.meta.id,
            name=name,
            storage_pool=self.pool.meta.id,
            template=self.template.meta.id,
            size=size,
        )
        return self.cloud.client.of(volume_pb2.Volume).begin_create(wanted)

    def adapter(self, name: str, address: str = "") -> Begun[adapter_pb2.Adapter]:
        """A network card in the subnet."""
        wanted = adapter_pb2.Adapter(
            project=self.project.meta.id, name=name, subnet=self.subnet.meta.id, address=address
        )
        return self.cloud.client.of(adapter_pb2.Adapter).begin_create(wanted)

    def wanted(self, name: str, *, vcpus: int = 1, memory: int = GIB) -> instance_pb2.Instance:
        """A machine to ask for, with a disk and a card of its own that are there."""
        return instance_pb2.Instance(
            project=self.project.meta.id,
            name=name,
            zone=self.zone.meta.id,
            vcpus=vcpus,
            memory=memory,
            volumes=[self.volume(f"{name}-os").resource.meta.id],
            adapters=[self.adapter(f"{name}-eth0").resource.meta.id],
        )

    def machine(self, name: str, *, vcpus: int = 1, memory: int = GIB) -> Begun[instance_pb2.Instance]:
        """A machine, asked for."""
        wanted = self.wanted(name, vcpus=vcpus, memory=memory)
        return self.cloud.client.of(instance_pb2.Instance).begin_create(wanted)

    def away(self) -> instance_pb2.Instance:
        """A machine that runs on the host, which has gone away since."""
        agent = self.cloud.dial(self.secret, FakeHost())
        until(lambda: self.client.kaktuses.get(self.host.meta.id).status.memory, what="the host's capacity")
        machine = self.cloud.client.of(instance_pb2.Instance).create(self.wanted("web"))
        self.cloud.hang_up(agent)
        until(lambda: not self.cloud.fleet_sessions(), what="the end of the session")
        return machine

    def registered(self, worker: FakeHost | None = None) -> FakeHost:
        """Lets the host's agent dial in, and waits for its capacity."""
        worker = worker or FakeHost()
        self.cloud.dial(self.secret, worker)
        hosts = self.cloud.client.of(kaktus_pb2.Kaktus)
        until(lambda: hosts.get(self.host.meta.id).status.memory, what="the host's capacity")
        return worker


def make_site(cloud: ControlPlane, cidr: str = "10.20.0.0/24") -> Site:
    """Makes one; its host's agent has not dialled in yet."""
    client = cloud.client
    region = cloud.region()
    zone = cloud.zone(region)
    agent, secret = cloud.agent()
    host = cloud.host(zone, agent=agent.meta.id)
    pool = storage_pool_pb2.StoragePool(
        region=region.meta.id, name="local", driver=storage_pool_pb2.STORAGE_DRIVER_DIR, kaktus=host.meta.id
    )
    pool = client.of(storage_pool_pb2.StoragePool).begin_create(pool).resource
    template = template_pb2.Template(storage_pool=pool.meta.id, name="tiny", source="tiny.qcow2", sha256="0" * 64)
    template = client.of(template_pb2.Template).begin_create(template).resource
    vnet = client.of(vnet_pb2.Vnet).create(vnet_pb2.Vnet(region=region.meta.id, name="lan"))
    subnet = client.of(subnet_pb2.Subnet).create(subnet_pb2.Subnet(vnet=vnet.meta.id, name="lan", cidr=cidr))
    project = client.of(project_pb2.Project).create(project_pb2.Project(name="shop"))
    return Site(cloud, region, zone, agent, secret, host, pool, template, vnet, subnet, project)
