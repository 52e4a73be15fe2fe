"""A machine as libvirt is told of it. Pure."""

import hashlib
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from agent_kaktus import names
from agent_kaktus.actual import Mark
from agent_kaktus.desired import Machine, Outfit, Port, Volume
from agent_kaktus.site import Site

NAMESPACE = "https://kowabunga.cloud/xmlns/kaktus/1"
PREFIX = "kowa"
MARK = f"{{{NAMESPACE}}}mark"

ElementTree.register_namespace(PREFIX, NAMESPACE)


def definition(site: Site, machine: Machine, outfit: Outfit) -> Element:
    """The domain, unmarked: what is asked for, and what FORM adds to that."""
    domain = _asked(site, machine, outfit)
    devices = domain.find("devices")
    assert devices is not None
    SubElement(devices, "panic", model="isa")  # without it nobody hears of a panic, and on_crash says nothing
    return domain


def _asked(site: Site, machine: Machine, outfit: Outfit) -> Element:
    domain = Element("domain", type=site.accelerator)
    _text(domain, "name", names.domain(machine.id))
    _text(domain, "uuid", machine.id)
    _text(domain, "memory", str(-(-machine.memory // 1024)), unit="KiB")
    _text(domain, "vcpu", str(machine.vcpus), placement="static")
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=site.machine_type)
    _features(domain, site)
    _cpu(domain, site)
    SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _no_sleep(domain)
    devices = SubElement(domain, "devices")
    for place, volume in enumerate(outfit.disks):
        _disk(devices, site, volume, place)
    _seed(devices, site, machine)
    for port in outfit.ports:
        _card(devices, port)
    _console(devices, site, machine)
    _channel(devices)
    random = SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")
    SubElement(devices, "memballoon", model="none")
    return domain


def digest(site: Site, machine: Machine, outfit: Outfit) -> str:
    """Of what is asked for only: with what FORM adds in it, a newer agent would have each machine restarted."""
    return hashlib.sha256(ElementTree.tostring(_asked(site, machine, outfit))).hexdigest()


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
    numbers = {"ran": mark.ran, "rests": mark.rests, "asked": mark.asked, "form": mark.form}
    return {"id": mark.id, "digest": mark.digest, **{name: str(number) for name, number in numbers.items()}}


def mark_of(domain: Element) -> Mark | None:
    """The mark of a domain as libvirt shows it. One we could not have written counts as none."""
    found = domain.find(f"metadata/{MARK}")
    if found is None:
        return None
    try:
        ran, rests = int(found.attrib["ran"]), int(found.attrib["rests"])
        asked, form = int(found.get("asked", "0")), int(found.get("form", "1"))  # older agents do not write them
        return Mark(found.attrib["id"], found.attrib["digest"], ran, rests, asked, form)
    except (KeyError, ValueError):
        return None


def disks_of(domain: Element) -> frozenset[str]:
    """The files that are a domain's disks, with those they stand on."""
    return frozenset(source.attrib["file"] for source in domain.findall(".//disk//source[@file]"))


def taps_of(domain: Element) -> frozenset[str]:
    return frozenset(target.attrib["dev"] for target in domain.findall("devices/interface/target[@dev]"))


def disk_name(place: int) -> str:
    """vda, vdb ... vdz."""
    return "vd" + chr(ord("a") + place)


def _features(domain: Element, site: Site) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if site.accelerator == "qemu":
        _text(SubElement(features, "tcg"), "tb-cache", str(site.tcg_cache_mib), unit="MiB")


def _cpu(domain: Element, site: Site) -> None:
    if site.accelerator == "kvm":
        SubElement(domain, "cpu", mode="host-passthrough", check="none", migratable="on")
    else:
        cpu = SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "qemu64", fallback="forbid")


def _no_sleep(domain: Element) -> None:
    """A guest that sleeps hears nothing, not even that it shall shut down."""
    management = SubElement(domain, "pm")
    SubElement(management, "suspend-to-mem", enabled="no")
    SubElement(management, "suspend-to-disk", enabled="no")


def _disk(devices: Element, site: Site, volume: Volume, place: int) -> None:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="qcow2", cache="writeback", discard="unmap")
    SubElement(disk, "source", file=str(site.volume(volume.pool, volume.id)))
    SubElement(disk, "target", dev=disk_name(place), bus="virtio")
    _text(disk, "serial", volume.id.replace("-", "")[:20])
    if place == 0:
        SubElement(disk, "boot", order="1")


def _seed(devices: Element, site: Site, machine: Machine) -> None:
    SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    disk = SubElement(devices, "disk", type="file", device="cdrom")
    SubElement(disk, "driver", name="qemu", type="raw")
    SubElement(disk, "source", file=str(site.seed(machine.id)))
    SubElement(disk, "target", dev="sda", bus="scsi")
    SubElement(disk, "readonly")


def _card(devices: Element, port: Port) -> None:
    interface = SubElement(devices, "interface", type="bridge")
    SubElement(interface, "mac", address=port.card.mac)
    SubElement(interface, "source", bridge=port.segment.bridge)
    SubElement(interface, "target", dev=port.card.tap)
    SubElement(interface, "model", type="virtio")
    SubElement(interface, "rom", enabled="no")


def _console(devices: Element, site: Site, machine: Machine) -> None:
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(site.console(machine.id)), append="on")
    SubElement(serial, "target", port="0")


def _channel(devices: Element) -> None:
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
