"""A desired instance, and the volumes and adapters that it refers to."""

from dataclasses import dataclass, field

from agent_kaktus.actual import DiskSource
from agent_kaktus.network.adapter import Adapter, Attachment, attachment_of
from agent_kaktus.settings import Settings
from agent_kaktus.storage.volume import Volume, source_of
from kowa.runtime.desired import Desired, DesiredObject
from kowa.v2 import instance_pb2


@dataclass(frozen=True, slots=True)
class Instance(DesiredObject):
    vcpus: int
    memory: int  # bytes
    power: instance_pb2.Power
    volumes: tuple[str, ...]
    adapters: tuple[str, ...]
    user_data: str = field(default="", repr=False)
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ssh_keys: tuple[str, ...] = field(default=(), repr=False)
    project: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        return (*self.volumes, *self.adapters)

    @property
    def is_to_stop(self) -> bool:
        return self.power == instance_pb2.POWER_STOPPED


@dataclass(frozen=True, slots=True)
class Devices:
    """An instance's volumes and adapters, each with the objects that it needs in turn."""

    disks: tuple[tuple[Volume, DiskSource], ...]
    attachments: tuple[Attachment, ...]

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        return tuple(attachment.adapter for attachment in self.attachments)


def devices_of(config: Settings, desired: Desired, instance: Instance) -> Devices:
    """Raises MissingReference, naming the first object that is not in the slice."""
    volumes = [desired.get(Volume, id_, "volume") for id_ in instance.volumes]
    adapters = [desired.get(Adapter, id_, "adapter") for id_ in instance.adapters]
    return Devices(
        tuple((volume, source_of(config, desired, volume)) for volume in volumes),
        tuple(attachment_of(desired, adapter) for adapter in adapters),
    )
