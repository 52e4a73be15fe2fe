"""The exact domain definition that libvirt gets."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from agent_kaktus.actual import DiskSource, Mark
from agent_kaktus.compute import domain
from agent_kaktus.compute.desired import Devices, Instance, devices_of
from agent_kaktus.kinds import KINDS
from agent_kaktus.settings import Settings
from agent_kaktus.storage import storage_pool
from kowa.v2 import storage_pool_pb2
from tests.kaktus.settings_of import settings_of

from .slices import MIB, Slice, id_of, slice_with_network

CONFIG = settings_of(Path("/p"), Path("/m"), accelerator="qemu")
WEB, ROOT, DATA, POOL = (id_of(name) for name in ("web", "root", "data", "pool"))
MARK = Mark(WEB, "abc")

GOLDEN = f"""\
<domain xmlns:kowa="https://kowabunga.cloud/xmlns/kaktus/1" type="qemu">
  <name>kowa-{WEB}</name>
  <uuid>{WEB}</uuid>
  <metadata>
    <kowa:mark id="{WEB}" digest="abc" ran="3" rests="0" asked="2" form="2" />
  </metadata>
  <memory unit="KiB">131072</memory>
  <vcpu placement="static">2</vcpu>
  <os>
    <type arch="x86_64" machine="pc-i440fx-7.2">hvm</type>
  </os>
  <features>
    <acpi />
    <apic />
    <tcg>
      <tb-cache unit="MiB">64</tb-cache>
    </tcg>
  </features>
  <cpu mode="custom" match="exact" check="none">
    <model fallback="forbid">qemu64</model>
  </cpu>
  <clock offset="utc" />
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <pm>
    <suspend-to-mem enabled="no" />
    <suspend-to-disk enabled="no" />
  </pm>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" cache="writeback" discard="unmap" />
      <source file="/p/{POOL}/{ROOT}.qcow2" />
      <target dev="vda" bus="virtio" />
      <serial>{ROOT.replace("-", "")[:20]}</serial>
      <boot order="1" />
    </disk>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2" cache="writeback" discard="unmap" />
      <source file="/p/{POOL}/{DATA}.qcow2" />
      <target dev="vdb" bus="virtio" />
      <serial>{DATA.replace("-", "")[:20]}</serial>
    </disk>
    <controller type="scsi" index="0" model="virtio-scsi" />
    <disk type="file" device="cdrom">
      <driver name="qemu" type="raw" />
      <source file="/m/{WEB}/seed.iso" />
      <target dev="sda" bus="scsi" />
      <readonly />
    </disk>
    <interface type="bridge">
      <mac address="02:00:00:00:00:01" />
      <source bridge="kb{id_of("vnet").replace("-", "")[:12]}" />
      <target dev="kt{id_of("nic").replace("-", "")[:12]}" />
      <model type="virtio" />
      <rom enabled="no" />
    </interface>
    <serial type="pty">
      <log file="/m/{WEB}/console.log" append="on" />
      <target port="0" />
    </serial>
    <channel type="unix">
      <target type="virtio" name="org.qemu.guest_agent.0" />
    </channel>
    <rng model="virtio">
      <backend model="random">/dev/urandom</backend>
    </rng>
    <memballoon model="none" />
    <panic model="isa" />
  </devices>
</domain>"""


def one_instance() -> Slice:
    slice_ = slice_with_network()
    slice_.volume("root")
    slice_.volume("data")
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root", "data"), ("nic",), vcpus=2, memory=128 * MIB)
    return slice_


def web(slice_: Slice, config: Settings = CONFIG) -> tuple[Instance, Devices]:
    desired = KINDS.parse(slice_.objects)
    web = desired.of(Instance)[WEB]
    return web, devices_of(config, desired, web)


def test_the_whole_definition() -> None:
    mark = Mark(WEB, "abc", ran_at=3, stop_requested_at=2)
    assert domain.definition(CONFIG, *web(one_instance()), mark) == GOLDEN


def test_a_kvm_guest_has_the_hosts_processor() -> None:
    text = domain.definition(replace(CONFIG, accelerator="kvm"), *web(one_instance()), MARK)
    assert ' type="kvm">' in text
    assert '<cpu mode="host-passthrough" check="none" migratable="on" />' in text
    assert "tb-cache" not in text


def test_a_mark_is_read_back() -> None:
    mark = Mark(WEB, "abc", ran_at=3, powered_off_at=2, stop_requested_at=1)
    element = ElementTree.fromstring(domain.definition(CONFIG, *web(one_instance()), mark))  # noqa: S314
    assert domain.mark_of(element) == mark
    older = ElementTree.fromstring(GOLDEN.replace(' asked="2"', ""))  # noqa: S314
    assert domain.mark_of(older) == Mark(WEB, "abc", ran_at=3)
    oldest = ElementTree.fromstring(GOLDEN.replace(' asked="2" form="2"', ""))  # noqa: S314
    assert domain.mark_of(oldest) == Mark(WEB, "abc", ran_at=3, version=1)


def test_an_invalid_mark_is_ignored() -> None:
    for text in ("<domain/>", f'<domain><metadata><m xmlns="{domain.NAMESPACE}"/></metadata></domain>'):
        assert domain.mark_of(ElementTree.fromstring(text)) is None  # noqa: S314
    damaged = GOLDEN.replace('ran="3"', 'ran="often"')
    assert domain.mark_of(ElementTree.fromstring(damaged)) is None  # noqa: S314


def test_the_fingerprint_changes_only_with_the_definition() -> None:
    slice_ = one_instance()
    before = domain.fingerprint(CONFIG, *web(slice_))
    slice_.instance("web", ("root", "data"), ("nic",), vcpus=2, memory=128 * MIB, user_data="#!/bin/sh")
    assert domain.fingerprint(CONFIG, *web(slice_)) == before
    slice_.instance("web", ("root", "data"), ("nic",), vcpus=3, memory=128 * MIB)
    assert domain.fingerprint(CONFIG, *web(slice_)) != before


def test_devices_added_by_a_newer_agent_do_not_change_the_fingerprint() -> None:
    """Agents before the panic device wrote this one; their instances must not be reported to need a restart."""
    assert (
        domain.fingerprint(CONFIG, *web(one_instance()))
        == "6b03cbbf2ea0edbbabe0022cd388a5d1d9b54dfce75bcdb88905deec08ade5b4"
    )


def test_text_of_users_is_escaped() -> None:
    slice_ = one_instance()
    slice_.vnet(interface="br0")
    text = domain.definition(CONFIG, *web(slice_), Mark(WEB, '"/><disk>'))
    assert "<disk>" not in text
    assert '<source bridge="br0" />' in text


def test_paths_are_escaped_as_elementtree_does() -> None:
    """Older agents took fingerprints of what ElementTree had written."""
    pools = Path("/p\t\n\r\"'<&>{ü}")
    config = replace(CONFIG, pools=pools)
    definition = domain._requested(config, *web(one_instance(), config))
    element = ElementTree.fromstring(definition)  # noqa: S314
    assert domain.disks_of(element) >= {f"{pools}/{POOL}/{ROOT}.qcow2"}
    assert ElementTree.tostring(element, encoding="unicode") == definition


def cluster_disk(_: Settings, pool: str, volume: str) -> DiskSource:
    """The disk source of a driver whose disks are not files."""
    return DiskSource("network", "raw", (("protocol", "rbd"), ("name", f"{pool}/{volume}")))


def test_a_disk_source_comes_from_the_driver_of_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(storage_pool.DISK_SOURCES, storage_pool_pb2.STORAGE_DRIVER_DIR, cluster_disk)
    element = ElementTree.fromstring(domain.definition(CONFIG, *web(one_instance()), MARK))  # noqa: S314
    first = element.find("devices/disk")
    assert first is not None
    for each in first.iter():
        each.text, each.tail = (each.text or "").strip(), None
    assert ElementTree.tostring(first, encoding="unicode") == (
        '<disk type="network" device="disk">'
        '<driver name="qemu" type="raw" cache="writeback" discard="unmap" />'
        f'<source protocol="rbd" name="{POOL}/{ROOT}" /><target dev="vda" bus="virtio" />'
        f'<serial>{ROOT.replace("-", "")[:20]}</serial><boot order="1" /></disk>'
    )
    assert f"{POOL}/{DATA}" in domain.disks_of(element)
    assert domain.disk_target(element, f"{POOL}/{DATA}") == "vdb"
    assert domain.disk_target(element, "nowhere") == ""
