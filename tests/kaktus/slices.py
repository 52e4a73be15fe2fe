"""Builds slices as Kahuna would send them."""

from dataclasses import dataclass, field
from uuid import UUID, uuid5

from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import (
    adapter_pb2,
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
_NAMES = UUID("6b6f7761-0000-4000-8000-000000000000")


def id_of(name: str) -> str:
    """The id that tests use for a name; always the same one."""
    return str(uuid5(_NAMES, name))


@dataclass
class Slice:
    """The desired state as an agent gets it, by id. Each method sets an object; again, it counts up the generation."""

    objects: dict[str, fleet_pb2.Object] = field(default_factory=dict)

    def put(self, name: str, resource: Message) -> str:
        id_ = id_of(name)
        before = self.objects.get(id_)
        generation = before.generation + 1 if before else 1
        self.objects[id_] = fleet_pb2.Object(id=id_, generation=generation, resource=resources.pack(resource))
        return id_

    def gone(self, *names: str) -> None:
        for name in names:
            old = self.objects[id_of(name)]
            new = fleet_pb2.Object(id=old.id, generation=old.generation + 1, gone=True, resource=old.resource)
            self.objects[old.id] = new

    def forget(self, name: str) -> None:
        del self.objects[id_of(name)]

    def host(self, name: str = "host") -> None:
        self.put(name, kaktus_pb2.Kaktus(name=name))
        self.put("region", region_pb2.Region(name="region"))
        self.put("zone", zone_pb2.Zone(name="zone-a", region=id_of("region")))
        self.put("project", project_pb2.Project(name="shop"))

    def pool(self, name: str = "pool") -> None:
        driver = storage_pool_pb2.STORAGE_DRIVER_DIR
        self.put(name, storage_pool_pb2.StoragePool(name=name, driver=driver, kaktus=id_of("host")))

    def template(self, name: str, source: str, sha256: str, pool: str = "pool") -> None:
        self.put(name, template_pb2.Template(name=name, storage_pool=id_of(pool), source=source, sha256=sha256))

    def volume(self, name: str, size: int = 64 * MIB, template: str = "", pool: str = "pool") -> None:
        origin = id_of(template) if template else ""
        self.put(name, volume_pb2.Volume(name=name, storage_pool=id_of(pool), template=origin, size=size))

    def vnet(self, name: str = "vnet", interface: str = "") -> None:
        self.put(name, vnet_pb2.Vnet(name=name, interface=interface))

    def subnet(
        self, name: str = "subnet", cidr: str = "10.9.0.0/24", gateway: str = "10.9.0.1", vnet: str = "vnet"
    ) -> None:
        self.put(name, subnet_pb2.Subnet(name=name, vnet=id_of(vnet), cidr=cidr, gateway=gateway))

    def adapter(self, name: str, address: str, mac: str = "02:00:00:00:00:01", subnet: str = "subnet") -> None:
        self.put(name, adapter_pb2.Adapter(name=name, subnet=id_of(subnet), address=address, mac=mac))

    def instance(
        self,
        name: str,
        volumes: tuple[str, ...] = (),
        adapters: tuple[str, ...] = (),
        power: instance_pb2.Power = instance_pb2.POWER_RUNNING,
        vcpus: int = 1,
        memory: int = 128 * MIB,
        metadata: dict[str, str] | None = None,
        ssh_keys: tuple[str, ...] = (),
        user_data: str = "",
    ) -> str:
        instance = instance_pb2.Instance(
            name=name,
            volumes=[id_of(volume) for volume in volumes],
            adapters=[id_of(adapter) for adapter in adapters],
            power=power,
            vcpus=vcpus,
            memory=memory,
            metadata=metadata,
            ssh_keys=ssh_keys,
            user_data=user_data,
            project=id_of("project"),
        )
        return self.put(name, instance)


def slice_with_network() -> Slice:
    """A host with a pool and a vnet with a subnet."""
    slice_ = Slice()
    slice_.host()
    slice_.pool()
    slice_.vnet()
    slice_.subnet()
    return slice_
