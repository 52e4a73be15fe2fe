"""The hardware and hypervisor of a host, from libvirt and /proc/cpuinfo."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from kowa.v2 import kaktus_pb2

_FLAGS = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)  # of x86, of ARM


def observe_facts(connection: Any) -> kaktus_pb2.KaktusStatus:
    """The parts of a host's status that never change. May be slow: libvirt may start QEMU for it."""
    architecture, _, cpus, *_ = connection.getInfo()  # its memory is wrong on some hosts
    number = connection.getVersion()
    capabilities = ElementTree.fromstring(connection.getCapabilities())  # noqa: S314 - libvirt's own
    return kaktus_pb2.KaktusStatus(
        cpus=cpus,
        memory=connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)["total"] << 10,
        hypervisor=f"{connection.getType()} {number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}",
        architecture=architecture,
        cpu_model=capabilities.findtext("host/cpu/model", ""),  # as libvirt names it
        cpu_flags=cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")),
        numa_nodes=numa_nodes(capabilities),
    )


def cpu_flags(cpuinfo: str) -> list[str]:
    """The flags of the first processor, in alphabetical order."""
    found = _FLAGS.search(cpuinfo)
    return sorted(found[1].split()) if found else []


def numa_nodes(capabilities: ElementTree.Element) -> Iterator[kaktus_pb2.NumaNode]:
    """Yields the host's NUMA nodes, in the order of their numbers; none if libvirt reports none."""
    cells = {int(cell.get("id", "0")): cell for cell in capabilities.iterfind("host/topology/cells/cell")}
    for number, cell in sorted(cells.items()):
        yield kaktus_pb2.NumaNode(
            id=number,
            cpus=_listed(int(cpu.get("id", "0")) for cpu in cell.iterfind("cpus/cpu")),
            memory=int(cell.findtext("memory", "0")) << 10,  # always in KiB
        )


def _listed(numbers: Iterable[int]) -> str:
    """Numbers as a text of ranges, such as `0-2,5`."""
    grouped = groupby(enumerate(sorted(numbers)), key=lambda each: each[1] - each[0])
    ranges = [[number for _, number in group] for _, group in grouped]
    return ",".join(f"{first}-{rest[-1]}" if rest else str(first) for first, *rest in ranges)
