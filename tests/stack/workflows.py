"""Workflows of cloud users: each makes its requests and returns the condition that they are fulfilled."""

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from kowa.v2 import (
    adapter_pb2,
    instance_pb2,
    meta_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
)
from tests.stack.site import Guest, Site
from tests.stack.slow_source import SlowSource
from tests.stack.stack import TINY
from tests.waiting import until

RUNNING, STOPPED, SUSPENDED = (
    instance_pb2.POWER_RUNNING,
    instance_pb2.POWER_STOPPED,
    instance_pb2.POWER_SUSPENDED,
)
Condition = Callable[[], bool]


@dataclass
class InstanceWorkflows:
    """An instance with its own network, disk and adapter."""

    site: Site
    name: str
    cidr: str
    guest: Guest
    vnet: vnet_pb2.Vnet = field(init=False)
    subnet: subnet_pb2.Subnet = field(init=False)
    volume: volume_pb2.Volume = field(init=False)
    adapter: adapter_pb2.Adapter = field(init=False)
    instance: instance_pb2.Instance = field(init=False)

    def create(self) -> Condition:
        """Creates the network first and the instance last, without waiting in between."""
        self.vnet = self.site.add_vnet(self.name)
        self.subnet = self.site.add_subnet(self.vnet, self.cidr)
        self.volume = self.site.add_volume(self.name, self.guest)
        self.adapter = self.site.add_adapter(self.name, self.subnet)
        self.instance = self.site.add_instance(self.name, self.volume, self.adapter, self.guest)
        return lambda: self.power() == RUNNING

    def resize(self) -> Condition:
        """Doubles the memory and the disk."""
        id_ = meta_pb2.Meta(id=self.instance.meta.id)
        more = instance_pb2.Instance(meta=id_, memory=2 * self.guest.memory)
        self.site.stack.call("update", instance_pb2.Instance, instance=more, update_mask=FieldMask(paths=["memory"]))
        larger = volume_pb2.Volume(meta=meta_pb2.Meta(id=self.volume.meta.id), size=2 * self.guest.disk)
        self.site.stack.call("update", volume_pb2.Volume, volume=larger, update_mask=FieldMask(paths=["size"]))
        return self._is_resized

    def suspend(self) -> Condition:
        return self._change_power("suspend", SUSPENDED)

    def resume(self) -> Condition:
        return self._change_power("resume", RUNNING)

    def start(self) -> Condition:
        return self._change_power("start", RUNNING)

    def stop(self) -> Condition:
        return self._change_power("stop", STOPPED)

    def reboot(self) -> Condition:
        """Reboots it; no state shows that, so the condition is always true."""
        self.site.stack.call("reboot", instance_pb2.Instance, id=self.instance.meta.id)
        return lambda: True

    def delete(self) -> Condition:
        """Deletes all of it; the vnet last, once its subnet is gone."""
        for part in self.parts()[:-1]:
            self.site.stack.delete(part)
        return self._is_gone

    def parts(self) -> tuple[Message, ...]:
        """Its resources, each before those it refers to."""
        return self.instance, self.volume, self.adapter, self.subnet, self.vnet

    def power(self) -> instance_pb2.Power:
        return self.site.stack.get(self.instance).status.power

    def _change_power(self, verb: str, power: instance_pb2.Power) -> Condition:
        self.site.stack.call(verb, instance_pb2.Instance, id=self.instance.meta.id)
        return lambda: self.power() == power

    def _is_resized(self) -> bool:
        domain = self.instance.meta.id
        host = self.site.stack.host
        return (
            f"<memory unit='KiB'>{2 * self.guest.memory >> 10}<" in host.virsh("dumpxml", "--inactive", domain)
            and self.site.stack.get(self.volume).status.size == 2 * self.guest.disk
        )

    def _is_gone(self) -> bool:
        if not self._is_there(self.subnet) and not self.site.stack.is_being_deleted(self.vnet):
            self.site.stack.delete(self.vnet)
        return not any(self._is_there(part) for part in self.parts())

    def _is_there(self, part: Message) -> bool:
        return bool(self.site.stack.list(type(part), f'meta.id = "{part.meta.id}"'))  # type: ignore[attr-defined]


@dataclass
class TemplateWorkflows:
    """A pool with its own templates."""

    site: Site
    name: str
    source: SlowSource
    pool: storage_pool_pb2.StoragePool = field(init=False)
    template: template_pb2.Template = field(init=False)

    def fill(self) -> Condition:
        self.pool = self.site.add_pool(self.name)
        self.template = self.site.add_template(self.pool, "tiny", TINY, self.site.stack.tiny)
        return lambda: self.site.stack.get(self.template).meta.state == meta_pb2.STATE_READY

    def cancel_import(self) -> Condition:
        """Deletes a template while it is downloaded."""
        before = self.source.requests
        other = self.site.add_template(self.pool, "slow", self.source.url, "0" * 64)
        until(lambda: self.source.requests > before, what="the agent requests the template")
        self.site.stack.delete(other)
        return lambda: not self.site.stack.list(template_pb2.Template, f'meta.id = "{other.meta.id}"')

    def clear(self) -> Condition:
        self.site.stack.delete(self.template)
        self.site.stack.delete(self.pool)
        return lambda: not self.site.stack.list(storage_pool_pb2.StoragePool, f'meta.id = "{self.pool.meta.id}"')
