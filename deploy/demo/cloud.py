"""The demo's resources, created through the public API and found again by name."""

import secrets
from typing import TypeVar

from google.protobuf.message import Message

from deploy.demo.layout import Layout
from deploy.programs import wait
from kowa import files
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

MIB = 1 << 20
VOLUME_BYTES = 512 * MIB
MEMORY_BYTES = 128 * MIB
M = TypeVar("M", bound=Message)


class Cloud:
    """The demo's resources."""

    def __init__(self, client: Client, layout: Layout) -> None:
        self.client = client
        self.layout = layout

    def ensure_host(self) -> None:
        """Ensures a region, a zone, and a host whose agent has a token."""
        region = self._ensure(region_pb2.Region(name="demo"))
        zone = self._ensure(zone_pb2.Zone(region=region.meta.id, name="demo-a"), region=region.meta.id)
        agent = self._ensure(agent_pb2.Agent(name="kaktus-1"))
        self._ensure(kaktus_pb2.Kaktus(zone=zone.meta.id, name="kaktus-1", agent=agent.meta.id), zone=zone.meta.id)
        if not self.layout.agent_token.exists():
            self._create_token(agent.meta.id)

    def ensure_instance(self) -> instance_pb2.Instance:
        """Ensures a network, a disk from the guest image, and an instance that uses both and is to run."""
        region = self._ensure(region_pb2.Region(name="demo"))
        zone = self._ensure(zone_pb2.Zone(region=region.meta.id, name="demo-a"), region=region.meta.id)
        host = self._ensure(kaktus_pb2.Kaktus(zone=zone.meta.id, name="kaktus-1"), zone=zone.meta.id)
        project = self._ensure(project_pb2.Project(name="demo"))
        vnet = self._ensure(vnet_pb2.Vnet(region=region.meta.id, name="demo"), region=region.meta.id)
        subnet = self._ensure(
            subnet_pb2.Subnet(vnet=vnet.meta.id, name="demo", cidr=self.layout.slot.cidr), vnet=vnet.meta.id
        )
        directory = storage_pool_pb2.STORAGE_DRIVER_DIR
        pool = self._ensure(
            storage_pool_pb2.StoragePool(region=region.meta.id, name="local", driver=directory, kaktus=host.meta.id),
            region=region.meta.id,
        )
        image = self.layout.guest / "kowa-guest.qcow2"
        checksum = image.with_suffix(".qcow2.sha256").read_text().split()[0]
        template = self._ensure(
            template_pb2.Template(storage_pool=pool.meta.id, name="kowa-guest", source=image.name, sha256=checksum),
            storage_pool=pool.meta.id,
        )
        volume = self._ensure(
            volume_pb2.Volume(
                project=project.meta.id,
                name="hello-os",
                storage_pool=pool.meta.id,
                template=template.meta.id,
                size=VOLUME_BYTES,
            ),
            project=project.meta.id,
        )
        adapter = self._ensure(
            adapter_pb2.Adapter(project=project.meta.id, name="hello-eth0", subnet=subnet.meta.id),
            project=project.meta.id,
        )
        return self._ensure(
            instance_pb2.Instance(
                project=project.meta.id,
                name="hello",
                zone=zone.meta.id,
                vcpus=1,
                memory=MEMORY_BYTES,
                volumes=[volume.meta.id],
                adapters=[adapter.meta.id],
                ssh_keys=[(self.layout.root / "ssh_key.pub").read_text().strip()],
                metadata={"proof": secrets.token_hex(8)},
            ),
            project=project.meta.id,
        )

    def await_running(self, instance: instance_pb2.Instance, timeout: float) -> instance_pb2.Instance:
        """Returns the instance once it runs, or at once if a user stopped it. Raises SystemExit after the timeout."""
        if instance.power != instance_pb2.POWER_RUNNING:
            return instance
        running = f'meta.id = "{instance.meta.id}" AND status.power = POWER_RUNNING'
        if not wait(lambda: list(self.client.instances.list(filter=running)), timeout):
            problems = self.problems(instance)
            raise SystemExit(f"demo: machine {instance.name} is not running after {timeout:g} s; {problems}")
        found: instance_pb2.Instance = self.client.instances.get(instance.meta.id)
        return found

    def problems(self, instance: instance_pb2.Instance) -> str:
        """The messages of its conditions, and of operations that wait or failed, in one line."""
        found = self.client.instances.get(instance.meta.id)
        messages = [condition.message for condition in found.meta.conditions]
        waiting = self.client.operations.list(filter="phase = PHASE_WAITING")
        failed = self.client.operations.list(filter="phase = PHASE_FAILED")
        messages += [f"{operation.target_name}: {operation.message}" for operation in (*waiting, *failed)]
        return "; ".join(filter(None, messages)) or "`make logs` may say why"

    def _ensure(self, wanted: M, **parent: str) -> M:
        kind = self.client.of(type(wanted))
        scope = {"name": wanted.name, **parent}  # type: ignore[attr-defined]
        condition = " AND ".join(f'{field} = "{value}"' for field, value in scope.items())
        existing = [found for found in kind.list(filter=condition) if not found.meta.HasField("delete_time")]  # type: ignore[attr-defined]
        return existing[0] if existing else kind.begin_create(wanted).resource

    def _create_token(self, agent: str) -> None:
        tokens = self.client.of(agent_token_pb2.AgentToken)
        for lost in tokens.list(filter=f'agent = "{agent}"'):
            tokens.delete(lost.meta.id)
        token = tokens.create(agent_token_pb2.AgentToken(agent=agent, name="demo"))
        files.write(self.layout.agent_token, f"{token.secret}\n".encode(), mode=0o600)
