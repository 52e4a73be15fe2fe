"""The resources that all instances of a stack's tests share, and helpers that create more."""

from collections.abc import Callable
from dataclasses import dataclass

from kowa.v2 import (
    adapter_pb2,
    agent_pb2,
    agent_token_pb2,
    instance_pb2,
    kaktus_pb2,
    meta_pb2,
    project_pb2,
    region_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
    zone_pb2,
)
from tests.kaktus.hosts import GUEST, IMAGE
from tests.stack.stack import MIB, TINY, Stack
from tests.waiting import until

CPU_OVERCOMMIT = 8  # virtual CPUs per CPU: idle instances need none
BOOT_TIMEOUT_S = 120.0  # on a busy machine


@dataclass(frozen=True)
class Guest:
    """The template and sizes of an instance."""

    template: template_pb2.Template
    memory: int
    disk: int


@dataclass
class Site:
    """A region with a zone, a host and a pool, and a project."""

    stack: Stack
    region: region_pb2.Region
    zone: zone_pb2.Zone
    host: kaktus_pb2.Kaktus
    project: project_pb2.Project
    pool: storage_pool_pb2.StoragePool
    idle: Guest  # a guest that does nothing

    @property
    def agent(self) -> agent_pb2.Agent:
        return self.stack.list(agent_pb2.Agent)[0]

    def restart_agent(self) -> None:
        """Kills the agent, and waits until the next one is connected."""
        epoch = self.agent.status.epoch
        self.stack.agent.kill()
        until(self.is_connected_since(epoch), what="the agent is connected")

    def is_connected_since(self, epoch: int) -> Callable[[], bool]:
        """A condition: a later session than this is open."""

        def is_connected() -> bool:
            status = self.agent.status
            return status.epoch > epoch and status.stream == agent_pb2.STREAM_ONLINE

        return is_connected

    def add_vnet(self, name: str) -> vnet_pb2.Vnet:
        return self.stack.create(vnet_pb2.Vnet(region=self.region.meta.id, name=name))

    def add_subnet(self, vnet: vnet_pb2.Vnet, cidr: str) -> subnet_pb2.Subnet:
        return self.stack.create(subnet_pb2.Subnet(vnet=vnet.meta.id, name="lan", cidr=cidr))

    def add_pool(self, name: str) -> storage_pool_pb2.StoragePool:
        directory = storage_pool_pb2.STORAGE_DRIVER_DIR
        return self.stack.create(
            storage_pool_pb2.StoragePool(
                region=self.region.meta.id, name=name, driver=directory, kaktus=self.host.meta.id
            )
        )

    def add_template(
        self, pool: storage_pool_pb2.StoragePool, name: str, source: str, sha256: str
    ) -> template_pb2.Template:
        return self.stack.create(
            template_pb2.Template(storage_pool=pool.meta.id, name=name, source=source, sha256=sha256)
        )

    def bootable_guest(self) -> Guest:
        """A guest that boots, and has a shell on its console."""
        if not (GUEST / IMAGE).exists():
            from deploy.guest.build import build

            build(GUEST)
        return Guest(self.import_template("guest", *self.stack.host.offer_guest()), 128 * MIB, 512 * MIB)

    def import_template(self, name: str, source: str, sha256: str) -> template_pb2.Template:
        """A template in the common pool, once it is imported."""
        template = self.add_template(self.pool, name, source, sha256)
        until(
            lambda: self.stack.get(template).meta.state == meta_pb2.STATE_READY,
            timeout=BOOT_TIMEOUT_S,
            what="it is imported",
        )
        return template

    def add_volume(self, name: str, guest: Guest) -> volume_pb2.Volume:
        return self.stack.create(
            volume_pb2.Volume(
                project=self.project.meta.id,
                name=name,
                storage_pool=guest.template.storage_pool,
                template=guest.template.meta.id,
                size=guest.disk,
            )
        )

    def add_adapter(self, name: str, subnet: subnet_pb2.Subnet) -> adapter_pb2.Adapter:
        return self.stack.create(adapter_pb2.Adapter(project=self.project.meta.id, name=name, subnet=subnet.meta.id))

    def add_instance(
        self, name: str, volume: volume_pb2.Volume, adapter: adapter_pb2.Adapter, guest: Guest
    ) -> instance_pb2.Instance:
        return self.stack.create(
            instance_pb2.Instance(
                project=self.project.meta.id,
                name=name,
                zone=self.zone.meta.id,
                vcpus=1,
                memory=guest.memory,
                volumes=[volume.meta.id],
                adapters=[adapter.meta.id],
            )
        )


def make_site(stack: Stack) -> Site:
    """Creates a site, and starts its host's agent."""
    region = stack.create(region_pb2.Region(name="eu"))
    zone = stack.create(zone_pb2.Zone(region=region.meta.id, name="eu-a"))
    agent = stack.create(agent_pb2.Agent(name="kaktus-1"))
    token = stack.create(agent_token_pb2.AgentToken(agent=agent.meta.id, name="first"))
    (stack.folder / "token").write_text(token.secret)
    host = stack.create(
        kaktus_pb2.Kaktus(zone=zone.meta.id, name="kaktus-1", agent=agent.meta.id, cpu_overcommit=CPU_OVERCOMMIT)
    )
    project = stack.create(project_pb2.Project(name="shop"))
    pool, template = storage_pool_pb2.StoragePool(), template_pb2.Template()
    site = Site(stack, region, zone, host, project, pool, Guest(template, 32 * MIB, MIB))
    stack.agent.start()
    until(lambda: stack.get(host).status.memory, what="the host's capacity")
    site.pool = site.add_pool("local")
    template.CopyFrom(site.import_template("idle", TINY, stack.tiny))
    return site
