"""Create to libvirt RUNNING, against the same overlay, define and start by hand. Uses the demo, which it starts."""

import contextlib
import io
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from bench.figure import HEADER, Figure, at_most, quantile
from deploy.demo.cloud import MEMORY_BYTES, VOLUME_BYTES, Cloud
from deploy.demo.layout import Layout
from deploy.demo.up import connect, up
from kowa.client import Client
from kowa.v2 import adapter_pb2, instance_pb2, volume_pb2

ROUNDS = 7
RUNNING_TIMEOUT_S = 60
ALLOWED_MS = 150  # over the floor


def figures() -> list[Figure]:
    """Milliseconds at the median, in alternating rounds."""
    layout = Layout()
    with contextlib.redirect_stdout(io.StringIO()):
        up(layout)
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open(f"qemu+unix:///system?socket={layout.libvirt / 'run' / 'libvirt-sock'}")
    with connect(layout) as client:
        model = Cloud(client, layout).ensure_instance()
        ours, floor = [], []
        for number in range(ROUNDS):
            ours.append(_through_kowabunga(client, connection, model, f"bench-{number}"))
            floor.append(_by_hand(connection, model.meta.id))
    connection.close()
    base = quantile(floor, 0.5) * 1e3
    return [at_most("create to libvirt RUNNING", quantile(ours, 0.5) * 1e3, "ms", base + ALLOWED_MS, base)]


def _through_kowabunga(client: Client, connection: Any, model: instance_pb2.Instance, name: str) -> float:
    """Seconds for volume, adapter and instance, requested in a row: by hand an overlay, a seed and a definition."""
    disk = client.of(volume_pb2.Volume).get(model.volumes[0])
    like = client.of(adapter_pb2.Adapter).get(model.adapters[0])
    started = time.perf_counter()
    volume = client.of(volume_pb2.Volume).begin_create(
        volume_pb2.Volume(
            project=model.project, name=name, storage_pool=disk.storage_pool, template=disk.template, size=VOLUME_BYTES
        )
    )
    adapter = client.of(adapter_pb2.Adapter).begin_create(
        adapter_pb2.Adapter(project=model.project, name=name, subnet=like.subnet)
    )
    instance = client.of(instance_pb2.Instance).begin_create(
        instance_pb2.Instance(
            project=model.project,
            name=name,
            zone=model.zone,
            vcpus=1,
            memory=MEMORY_BYTES,
            volumes=[volume.resource.meta.id],
            adapters=[adapter.resource.meta.id],
        )
    )
    _await_running(connection, instance.resource.meta.id)
    taken = time.perf_counter() - started
    client.of(instance_pb2.Instance).delete(instance.resource.meta.id)
    client.of(volume_pb2.Volume).delete(volume.resource.meta.id)
    client.of(adapter_pb2.Adapter).delete(adapter.resource.meta.id)
    return taken


def _by_hand(connection: Any, model: str) -> float:
    """Seconds for a copy of the model's definition, with a disk, seed and adapter of its own."""
    id_ = str(uuid.uuid4())
    described = connection.lookupByUUIDString(model).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    definition = ElementTree.fromstring(described)  # noqa: S314 - libvirt's own
    with _copies(definition, id_) as (disk, backing):
        started = time.perf_counter()
        qemu_img = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]
        subprocess.run([*qemu_img, str(backing), str(disk), str(VOLUME_BYTES)], check=True)
        domain = connection.defineXML(ElementTree.tostring(definition, encoding="unicode"))
        domain.create()
        _await_running(connection, id_)
        taken = time.perf_counter() - started
        domain.destroy()
        domain.undefine()
    return taken


@contextlib.contextmanager
def _copies(definition: ElementTree.Element, id_: str) -> Iterator[tuple[Path, Path]]:
    """Gives a definition names and files of its own; yields the path of its disk, to be created, and its template's."""

    def element(path: str) -> ElementTree.Element:
        found = definition.find(path)
        assert found is not None, path
        return found

    element("uuid").text, element("name").text = id_, f"bench-{id_}"
    for part in definition.findall("metadata"):
        definition.remove(part)
    original = Path(element("devices/disk[@device='disk']/source").attrib["file"])
    disk = original.with_name(f"bench-{id_}.qcow2")
    element("devices/disk[@device='disk']/source").set("file", str(disk))
    log = element("devices/serial/log")
    log.set("file", str(disk.with_suffix(".log")))
    for name in ("alias", "mac"):
        interface = element("devices/interface")
        for part in interface.findall(name):
            interface.remove(part)
    element("devices/interface/target").set("dev", f"kt{id_[:8]}")
    command = ["qemu-img", "info", "-U", "--output=json", str(original)]
    information = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    backing = Path(information["full-backing-filename"])
    try:
        yield disk, backing
    finally:
        for left in (disk, disk.with_suffix(".log")):
            left.unlink(missing_ok=True)


def _await_running(connection: Any, id_: str) -> None:
    end = time.perf_counter() + RUNNING_TIMEOUT_S
    while time.perf_counter() < end:
        with contextlib.suppress(libvirt.libvirtError):
            if connection.lookupByUUIDString(id_).state()[0] == libvirt.VIR_DOMAIN_RUNNING:
                return
        time.sleep(0.002)
    raise TimeoutError(f"{id_} is not running after {RUNNING_TIMEOUT_S} s")


if __name__ == "__main__":
    assert shutil.which("qemu-img"), "run `make setup` first"
    print(HEADER, *figures(), sep="\n")
