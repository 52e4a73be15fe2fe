"""Parses a slice."""

import re
from collections.abc import Mapping
from dataclasses import replace

from google.protobuf.message import Message

from agent_kaktus.desired import Card, Desired, Host, Machine, Passive, Pool, Range, Segment, Template, Thing, Volume
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.parsing import Made, address, network, parse_each, the_one
from kowa.v2 import (
    adapter_pb2,
    instance_pb2,
    kaktus_pb2,
    kiwi_pb2,
    project_pb2,
    region_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
    zone_pb2,
)

SECTOR = 512
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def parse(slice_: Mapping[str, fleet_pb2.Object]) -> Desired:
    """Raises Refused, naming the object, when one can't be understood."""
    hosts: dict[str, Host] = {}
    desired = Desired()
    for key, thing in parse_each(slice_, _parse):
        match thing:
            case Host():
                hosts[key] = thing
            case Pool():
                desired.pools[key] = thing
            case Template():
                desired.templates[key] = thing
            case Volume():
                desired.volumes[key] = thing
            case Segment():
                desired.segments[key] = thing
            case Range():
                desired.ranges[key] = thing
            case Card():
                desired.cards[key] = thing
            case Machine():
                desired.machines[key] = thing
            case Passive():
                desired.passive[key] = thing
    return replace(desired, host=the_one("kaktus", hosts))


def _parse(made: Made, sent: Message) -> Thing:
    match sent:
        case kaktus_pb2.Kaktus():
            return Host(*made, sent.name)
        case storage_pool_pb2.StoragePool():
            return Pool(*made, sent.name, sent.driver == storage_pool_pb2.STORAGE_DRIVER_DIR)
        case template_pb2.Template():
            return _template(made, sent)
        case volume_pb2.Volume():
            return _volume(made, sent)
        case vnet_pb2.Vnet():
            return _segment(made, sent)
        case subnet_pb2.Subnet():
            return _range(made, sent)
        case adapter_pb2.Adapter():
            return _card(made, sent)
        case instance_pb2.Instance():
            return _machine(made, sent)
        case zone_pb2.Zone():
            return Passive(*made, type(sent), sent.name, sent.region)
        case region_pb2.Region() | project_pb2.Project() | kiwi_pb2.Kiwi():
            return Passive(*made, type(sent), sent.name)
    raise ValueError("this agent knows no such kind")


def _template(made: Made, sent: template_pb2.Template) -> Template:
    sha256 = sent.sha256.lower()
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 {sent.sha256!r} is not a checksum")
    return Template(*made, sent.name, sent.storage_pool, sent.source, sha256)


def _volume(made: Made, sent: volume_pb2.Volume) -> Volume:
    if sent.size <= 0:
        raise ValueError(f"size {sent.size} is not a size")
    return Volume(*made, sent.name, sent.storage_pool, sent.template, -(-sent.size // SECTOR) * SECTOR)


def _segment(made: Made, sent: vnet_pb2.Vnet) -> Segment:
    if sent.interface and not _DEVICE.fullmatch(sent.interface):
        raise ValueError(f"interface {sent.interface!r} can't be a device")
    return Segment(*made, sent.name, sent.interface)


def _range(made: Made, sent: subnet_pb2.Subnet) -> Range:
    gateway = address("gateway", sent.gateway) if sent.gateway else None
    return Range(
        *made, sent.name, sent.vnet, network(sent.cidr), gateway, tuple(str(address("dns", one)) for one in sent.dns)
    )


def _card(made: Made, sent: adapter_pb2.Adapter) -> Card:
    mac = sent.mac.lower()
    if not _MAC.fullmatch(mac):
        raise ValueError(f"mac {sent.mac!r} can't be a card's")
    return Card(*made, sent.name, sent.subnet, mac, address("address", sent.address))


def _machine(made: Made, sent: instance_pb2.Instance) -> Machine:
    power = sent.power or instance_pb2.POWER_RUNNING
    if power not in instance_pb2.Power.values():
        raise ValueError(f"power {power} is not known")
    if not _LABEL.fullmatch(sent.name):
        raise ValueError(f"name {sent.name!r} can't be a host's")
    if sent.vcpus < 1 or sent.memory < 1 << 20:
        raise ValueError(f"{sent.vcpus} vCPUs and {sent.memory} bytes of memory make no machine")
    return Machine(
        *made, sent.name, sent.vcpus, sent.memory, power, tuple(sent.volumes), tuple(sent.adapters),
        sent.user_data, tuple(sorted(sent.metadata.items())), tuple(sent.ssh_keys), sent.project, sent.zone,
    )  # fmt: skip
