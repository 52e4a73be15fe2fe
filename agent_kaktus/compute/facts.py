"""What a host is made of, from libvirt's capabilities and /proc/cpuinfo. Pure."""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from agent_kaktus.actual import NumaNode

_FLAGS = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)  # of x86, of ARM


def cpu_model(capabilities: ElementTree.Element) -> str:
    """The processor's model as libvirt names it, or nothing."""
    return capabilities.findtext("host/cpu/model", "")


def cpu_flags(cpuinfo: str) -> tuple[str, ...]:
    """The flags of the first processor, in alphabetical order."""
    found = _FLAGS.search(cpuinfo)
    return tuple(sorted(found[1].split())) if found else ()


def numa_nodes(capabilities: ElementTree.Element) -> tuple[NumaNode, ...]:
    """The host's NUMA nodes, by number; none where libvirt knows of none."""
    nodes = (
        NumaNode(
            int(cell.get("id", "0")),
            _listed(int(cpu.get("id", "0")) for cpu in cell.iterfind("cpus/cpu")),
            int(cell.findtext("memory", "0")) << 10,  # always in KiB
        )
        for cell in capabilities.iterfind("host/topology/cells/cell")
    )
    return tuple(sorted(nodes, key=lambda node: node.id))


def _listed(numbers: Iterable[int]) -> str:
    """`0-2,5`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, each)) for each in ranges)
