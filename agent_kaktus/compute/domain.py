"""The domain of an instance: writes and reads its definition in libvirt's XML. Pure."""

import dataclasses
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import escape

from agent_kaktus import names
from agent_kaktus.actual import DiskSource, Mark, source_key
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.network.adapter import Attachment
from agent_kaktus.settings import Settings
from agent_kaktus.storage.volume import Volume

NAMESPACE = "https://kowabunga.cloud/xmlns/kaktus/1"
PREFIX = "kowa"
MARK = f"{{{NAMESPACE}}}mark"
_MARK_ATTRIBUTES = ("id", "digest", "ran", "rests", "asked", "form")  # one for each field of Mark, in their order
_MARK_DEFAULTS = {"asked": "0", "form": "1"}  # of attributes that older agents did not write

ElementTree.register_namespace(PREFIX, NAMESPACE)


def _template(name: str) -> str:
    """Reads an XML template of this folder, without comments and white space between elements."""
    return re.sub(r"<!--.*?-->|\n *", "", Path(__file__).with_name(f"{name}.xml").read_text("ascii"))


# In ElementTree's format: earlier agents computed fingerprints of its output.
_DOMAIN = _template("domain")
_DISK = _template("disk")
_INTERFACE = _template("interface")
_ESCAPES = {'"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#09;"}  # with &, < and >
_TCG_CACHE = '<tcg><tb-cache unit="MiB">{size}</tb-cache></tcg>'
_HOST_CPU = '<cpu mode="host-passthrough" check="none" migratable="on" />'
_EMULATED_CPU = '<cpu mode="custom" match="exact" check="none"><model fallback="forbid">qemu64</model></cpu>'


def definition(config: Settings, instance: Instance, devices: Devices, mark: Mark) -> str:
    """The XML of the domain: the requested parts, those that DEFINITION_VERSION counts, and our mark."""
    domain = ElementTree.fromstring(_requested(config, instance, devices))  # noqa: S314 - our own
    # Without this device libvirt does not notice a panic, and on_crash has no effect.
    SubElement(next(domain.iter("devices")), "panic", model="isa")
    metadata = Element("metadata")
    SubElement(metadata, MARK, _attributes(mark))
    domain.insert(2, metadata)  # after name and uuid
    ElementTree.indent(domain)
    return ElementTree.tostring(domain, encoding="unicode")


def fingerprint(config: Settings, instance: Instance, devices: Devices) -> str:
    """The fingerprint of the requested parts only: others would make a newer agent require a restart everywhere."""
    text = _requested(config, instance, devices)
    return hashlib.sha256(text.encode("ascii", "xmlcharrefreplace")).hexdigest()


def _requested(config: Settings, instance: Instance, devices: Devices) -> str:
    is_emulated = config.accelerator == "qemu"
    return _DOMAIN.format(
        accelerator=config.accelerator,
        name=names.domain(instance.id),
        id=instance.id,
        memory=-(-instance.memory // 1024),
        vcpus=instance.vcpus,
        machine_type=_escaped(config.machine_type),
        tcg_cache=_TCG_CACHE.format(size=config.tcg_cache_mib) if is_emulated else "",
        cpu=_EMULATED_CPU if is_emulated else _HOST_CPU,
        disks="".join(_disk(volume, source, number) for number, (volume, source) in enumerate(devices.disks)),
        seed=_escaped(config.seed(instance.id)),
        interfaces="".join(_interface(attachment) for attachment in devices.attachments),
        console=_escaped(config.console(instance.id)),
    )


def _disk(volume: Volume, source: DiskSource, number: int) -> str:
    attributes = "".join(f'{name}="{_escaped(value)}" ' for name, value in source.attributes)
    return _DISK.format(
        type=source.type,
        format=source.format,
        source=f"<source {attributes}/>",
        target="vd" + chr(ord("a") + number),
        serial=volume.id.replace("-", "")[:20],
        boot="" if number else '<boot order="1" />',
    )


def _interface(attachment: Attachment) -> str:
    adapter = attachment.adapter
    return _INTERFACE.format(mac=adapter.mac, bridge=_escaped(attachment.vnet.bridge), tap=adapter.tap)


def _escaped(value: str | Path) -> str:
    """A value as ElementTree escapes it in an attribute."""
    return escape(str(value), _ESCAPES)


def bare_mark(mark: Mark) -> str:
    """The XML of a mark for an existing domain, without its namespace, which libvirt adds itself."""
    return ElementTree.tostring(Element("mark", _attributes(mark)), encoding="unicode")


def _attributes(mark: Mark) -> dict[str, str]:
    return {name: str(value) for name, value in zip(_MARK_ATTRIBUTES, dataclasses.astuple(mark), strict=True)}


def mark_of(domain: Element) -> Mark | None:
    """Reads the mark from a domain's XML. None if there is none, or a malformed one, which is not ours."""
    found = domain.find(f"metadata/{MARK}")
    if found is None:
        return None
    attributes = _MARK_DEFAULTS | found.attrib
    try:
        id_, fingerprint, *numbers = (attributes[name] for name in _MARK_ATTRIBUTES)
        return Mark(id_, fingerprint, *map(int, numbers))
    except (KeyError, ValueError):
        return None


def disks_of(domain: Element) -> frozenset[str]:
    """The keys of the sources of a domain's disks and of their backing files."""
    return frozenset(key for source in domain.findall(".//disk//source") if (key := source_key(source.attrib)))


def disk_target(domain: Element, key: str) -> str:
    """The target name, such as `vda`, of the disk with this source; empty if the domain has no such disk."""
    for disk in domain.findall("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None and source_key(source.attrib) == key:
            return target.get("dev", "")
    return ""


def taps_of(domain: Element) -> frozenset[str]:
    return frozenset(target.attrib["dev"] for target in domain.findall("devices/interface/target[@dev]"))
