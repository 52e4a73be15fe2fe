"""The domain of an instance: its definition in libvirt's XML, and what a definition says. Pure."""

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
_MARK_ATTRIBUTES = ("id", "digest", "ran", "rests", "asked", "form")  # of its fields, in their order
_OLDER_MARK = {"asked": "0", "form": "1"}  # what older agents did not write

ElementTree.register_namespace(PREFIX, NAMESPACE)


def _template(name: str) -> str:
    """A file of this folder, without the comments and white space between its elements."""
    return re.sub(r"<!--.*?-->|\n *", "", Path(__file__).with_name(f"{name}.xml").read_text("ascii"))


# They are written as ElementTree writes XML: agents before took fingerprints of what it had written.
_DOMAIN = _template("domain")
_DISK = _template("disk")
_INTERFACE = _template("interface")
_ESCAPES = {'"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#09;"}  # with &, < and >
_TCG_CACHE = '<tcg><tb-cache unit="MiB">{size}</tb-cache></tcg>'
_HOST_CPU = '<cpu mode="host-passthrough" check="none" migratable="on" />'
_EMULATED_CPU = '<cpu mode="custom" match="exact" check="none"><model fallback="forbid">qemu64</model></cpu>'


def definition(config: Settings, instance: Instance, devices: Devices, mark: Mark) -> str:
    """The text of the domain: what is requested, what DEFINITION_VERSION adds to that, and our mark."""
    domain = ElementTree.fromstring(_requested(config, instance, devices))  # noqa: S314 - our own
    # Without it libvirt does not notice a panic, and on_crash does nothing.
    SubElement(next(domain.iter("devices")), "panic", model="isa")
    metadata = Element("metadata")
    SubElement(metadata, MARK, _attributes(mark))
    domain.insert(2, metadata)  # behind name and uuid
    ElementTree.indent(domain)
    return ElementTree.tostring(domain, encoding="unicode")


def fingerprint(config: Settings, instance: Instance, devices: Devices) -> str:
    """Of what is requested only: with what we add in it, a newer agent would have each instance restarted."""
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
    """As ElementTree writes it in an attribute."""
    return escape(str(value), _ESCAPES)


def bare_mark(mark: Mark) -> str:
    """The text of a mark for a domain that is already defined: there libvirt itself adds the namespace."""
    return ElementTree.tostring(Element("mark", _attributes(mark)), encoding="unicode")


def _attributes(mark: Mark) -> dict[str, str]:
    return {name: str(value) for name, value in zip(_MARK_ATTRIBUTES, dataclasses.astuple(mark), strict=True)}


def mark_of(domain: Element) -> Mark | None:
    """The mark of a domain as libvirt shows it. One we could not have written counts as none."""
    found = domain.find(f"metadata/{MARK}")
    if found is None:
        return None
    attributes = _OLDER_MARK | found.attrib
    try:
        id_, fingerprint, *numbers = (attributes[name] for name in _MARK_ATTRIBUTES)
        return Mark(id_, fingerprint, *map(int, numbers))
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
