"""A small site with everything an instance needs, and one method for each further resource."""

from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from kahuna.kinds.tracking import Cause
from kahuna.store.transaction import Transaction
from kowa.calls import Answer
from kowa.client import Client
from kowa.v2 import (
    adapter_pb2,
    agent_pb2,
    agent_token_pb2,
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
from tests.control_plane import GIB, ControlPlane, FakeWorker
from tests.waiting import until

M = TypeVar("M", bound=Message)


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
        """The control plane's current client, or `other_client` if set."""
        return cast(Client, self.other_client) if self.other_client else self.cloud.client

    def add_volume(self, name: str, size: int = GIB) -> Answer[volume_pb2.Volume]:
        """Creates a disk from the template."""
        wanted = volume_pb2.Volume(
            project=self.project.meta.id,
            name=name,
            storage_pool=self.pool.meta.id,
            template=self.template.meta.id,
            size=size,
        )
        return self.cloud.client.of(volume_pb2.Volume).begin_create(wanted)

    def add_adapter(self, name: str, address: str = "") -> Answer[adapter_pb2.Adapter]:
        """Creates an adapter in the subnet."""
        wanted = adapter_pb2.Adapter(
            project=self.project.meta.id, name=name, subnet=self.subnet.meta.id, address=address
        )
        return self.cloud.client.of(adapter_pb2.Adapter).begin_create(wanted)

    def wanted(self, name: str, *, vcpus: int = 1, memory: int = GIB) -> instance_pb2.Instance:
        """An instance to create; its disk and its adapter are created by this call."""
        return instance_pb2.Instance(
            project=self.project.meta.id,
            name=name,
            zone=self.zone.meta.id,
            vcpus=vcpus,
            memory=memory,
            volumes=[self.add_volume(f"{name}-os").resource.meta.id],
            adapters=[self.add_adapter(f"{name}-eth0").resource.meta.id],
        )

    def add_instance(self, name: str, *, vcpus: int = 1, memory: int = GIB) -> Answer[instance_pb2.Instance]:
        """Creates an instance, without waiting for it."""
        wanted = self.wanted(name, vcpus=vcpus, memory=memory)
        return self.cloud.client.of(instance_pb2.Instance).begin_create(wanted)

    def running_on_lost_host(self) -> instance_pb2.Instance:
        """An instance on the host, whose agent has disconnected."""
        agent = self.cloud.dial(self.secret, FakeWorker())
        until(lambda: self.client.kaktuses.get(self.host.meta.id).status.memory, what="the host's capacity")
        instance = self.cloud.client.of(instance_pb2.Instance).create(self.wanted("web"))
        self.cloud.disconnect(agent)
        until(lambda: not self.cloud.fleet_sessions(), what="the end of the session")
        return instance

    def connect_host(self, worker: FakeWorker | None = None) -> FakeWorker:
        """Connects the host's agent, and waits for the host's capacity."""
        worker = worker or FakeWorker()
        self.cloud.dial(self.secret, worker)
        hosts = self.cloud.client.of(kaktus_pb2.Kaktus)
        until(lambda: hosts.get(self.host.meta.id).status.memory, what="the host's capacity")
        return worker


def make_site(cloud: ControlPlane, cidr: str = "10.20.0.0/24") -> Site:
    """Creates a site; its host's agent has not connected yet."""
    store, cause = cloud.kahuna.store, Cause("CreateSite", "admin")

    def work(tx: Transaction) -> tuple[str, list[tuple[str, str]]]:
        """Creates all in one transaction: separate API calls would take most of a short test's time."""
        created: list[tuple[str, str]] = []

        def create(resource: M) -> M:
            answer: M = cloud.kahuna.kinds[resource.DESCRIPTOR.name].create(tx, cause, resource).resource
            created.append((resource.DESCRIPTOR.name, answer.meta.id))  # type: ignore[attr-defined]
            return answer

        region = create(region_pb2.Region(name="eu")).meta.id
        zone = create(zone_pb2.Zone(region=region, name="eu-a")).meta.id
        agent = create(agent_pb2.Agent(name="agent-1")).meta.id
        host = create(kaktus_pb2.Kaktus(zone=zone, name="host-1", agent=agent)).meta.id
        directory = storage_pool_pb2.STORAGE_DRIVER_DIR
        pool = create(storage_pool_pb2.StoragePool(region=region, name="local", driver=directory, kaktus=host)).meta.id
        create(template_pb2.Template(storage_pool=pool, name="tiny", source="tiny.qcow2", sha256="0" * 64))
        vnet = create(vnet_pb2.Vnet(region=region, name="lan")).meta.id
        create(subnet_pb2.Subnet(vnet=vnet, name="lan", cidr=cidr))
        create(project_pb2.Project(name="shop"))
        token = cloud.kahuna.kinds["AgentToken"].create(
            tx, cause, agent_token_pb2.AgentToken(agent=agent, name="first")
        )
        return token.resource.secret, created

    secret, created = cloud.loop.run(store.run(work))
    region, zone, agent, host, pool, template, vnet, subnet, project = (
        cast(Any, store.view.find(kind, id_)) for kind, id_ in created
    )
    return Site(cloud, region, zone, agent, secret, host, pool, template, vnet, subnet, project)
