"""The domain of an instance: its definition in libvirt's XML, and what a definition says. Pure."""

import hashlib
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from agent_kaktus import names
from agent_kaktus.actual import Mark
from agent_kaktus.compute.desired import Devices, Disk, Instance
from agent_kaktus.config import HostConfig
from agent_kaktus.disk import source_key
from agent_kaktus.network.adapter import Attachment

NAMESPACE = "https://kowabunga.cloud/xmlns/kaktus/1"
PREFIX = "kowa"
MARK = f"{{{NAMESPACE}}}mark"

ElementTree.register_namespace(PREFIX, NAMESPACE)


def definition(config: HostConfig, instance: Instance, wanted: Devices) -> Element:
    """The domain, unmarked: what is asked for, and what DEFINITION_VERSION adds to that."""
    domain = _asked(config, instance, wanted)
    devices = domain.find("devices")
    assert devices is not None
    SubElement(devices, "panic", model="isa")  # without it nobody hears of a panic, and on_crash says nothing
    return domain


def _asked(config: HostConfig, instance: Instance, wanted: Devices) -> Element:
    domain = Element("domain", type=config.accelerator)
    _text(domain, "name", names.domain(instance.id))
    _text(domain, "uuid", instance.id)
    _text(domain, "memory", str(-(-instance.memory // 1024)), unit="KiB")
    _text(domain, "vcpu", str(instance.vcpus), placement="static")
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=config.machine_type)
    _features(domain, config)
    _cpu(domain, config)
    SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _no_sleep(domain)
    devices = SubElement(domain, "devices")
    for place, disk in enumerate(wanted.disks):
        _disk(devices, disk, place)
    _seed(devices, config, instance)
    for plugged in wanted.attachments:
        _interface(devices, plugged)
    _console(devices, config, instance)
    _channel(devices)
    random = SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")
    SubElement(devices, "memballoon", model="none")
    return domain


def fingerprint(config: HostConfig, instance: Instance, devices: Devices) -> str:
    """Of what is asked for only: with what we add in it, a newer agent would have each instance restarted."""
    return hashlib.sha256(ElementTree.tostring(_asked(config, instance, devices))).hexdigest()


def marked(domain: Element, mark: Mark) -> str:
    """The text of a definition that bears our mark."""
    metadata = Element("metadata")
    metadata.append(Element(MARK, _attributes(mark)))
    domain.insert([child.tag for child in domain].index("uuid") + 1, metadata)
    ElementTree.indent(domain)
    return ElementTree.tostring(domain, encoding="unicode")


def bare_mark(mark: Mark) -> str:
    """The text of a mark for a domain that is already defined: there libvirt itself adds the namespace."""
    return ElementTree.tostring(Element("mark", _attributes(mark)), encoding="unicode")


def _attributes(mark: Mark) -> dict[str, str]:
    numbers = {"ran": mark.ran_at, "rests": mark.powered_off_at, "asked": mark.stop_asked_at, "form": mark.version}
    return {"id": mark.id, "digest": mark.fingerprint, **{name: str(number) for name, number in numbers.items()}}


def mark_of(domain: Element) -> Mark | None:
    """The mark of a domain as libvirt shows it. One we could not have written counts as none."""
    found = domain.find(f"metadata/{MARK}")
    if found is None:
        return None
    try:
        ran_at, powered_off_at = int(found.attrib["ran"]), int(found.attrib["rests"])
        stop_asked_at = int(found.get("asked", "0"))  # older agents do not write it, nor the next
        version = int(found.get("form", "1"))
        return Mark(found.attrib["id"], found.attrib["digest"], ran_at, powered_off_at, stop_asked_at, version)
    except (KeyError, ValueError):
        return None


def disks_of(domain: Element) -> frozenset[str]:
    """The keys of the sources of a domain's disks, with those they stand on."""
    return frozenset(key for source in domain.findall(".//disk//source") if (key := source_key(source.attrib)))


def disk_target(domain: Element, key: str) -> str:
    """What a domain calls its disk with a source, such as `vda`; empty if it has none."""
    for disk in domain.findall("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None and source_key(source.attrib) == key:
            return target.get("dev", "")
    return ""


def taps_of(domain: Element) -> frozenset[str]:
    return frozenset(target.attrib["dev"] for target in domain.findall("devices/interface/target[@dev]"))


def disk_name(place: int) -> str:
    """vda, vdb ... vdz."""
    return "vd" + chr(ord("a") + place)


def _features(domain: Element, config: HostConfig) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if config.accelerator == "qemu":
        _text(SubElement(features, "tcg"), "tb-cache", str(config.tcg_cache_mib), unit="MiB")


def _cpu(domain: Element, config: HostConfig) -> None:
    if config.accelerator == "kvm":
        SubElement(domain, "cpu", mode="host-passthrough", check="none", migratable="on")
    else:
        cpu = SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "qemu64", fallback="forbid")


def _no_sleep(domain: Element) -> None:
    """Turns guest sleep off: a sleeping guest does not react to a shutdown request."""
    management = SubElement(domain, "pm")
    SubElement(management, "suspend-to-mem", enabled="no")
    SubElement(management, "suspend-to-disk", enabled="no")


def _disk(devices: Element, disk: Disk, place: int) -> None:
    element = SubElement(devices, "disk", type=disk.source.type, device="disk")
    SubElement(element, "driver", name="qemu", type=disk.source.format, cache="writeback", discard="unmap")
    disk.source.add_to(element)
    SubElement(element, "target", dev=disk_name(place), bus="virtio")
    _text(element, "serial", disk.volume.id.replace("-", "")[:20])
    if place == 0:
        SubElement(element, "boot", order="1")


def _seed(devices: Element, config: HostConfig, instance: Instance) -> None:
    SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    disk = SubElement(devices, "disk", type="file", device="cdrom")
    SubElement(disk, "driver", name="qemu", type="raw")
    SubElement(disk, "source", file=str(config.seed(instance.id)))
    SubElement(disk, "target", dev="sda", bus="scsi")
    SubElement(disk, "readonly")


def _interface(devices: Element, plugged: Attachment) -> None:
    interface = SubElement(devices, "interface", type="bridge")
    SubElement(interface, "mac", address=plugged.adapter.mac)
    SubElement(interface, "source", bridge=plugged.vnet.bridge)
    SubElement(interface, "target", dev=plugged.adapter.tap)
    SubElement(interface, "model", type="virtio")
    SubElement(interface, "rom", enabled="no")


def _console(devices: Element, config: HostConfig, instance: Instance) -> None:
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(config.console(instance.id)), append="on")
    SubElement(serial, "target", port="0")


def _channel(devices: Element) -> None:
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
