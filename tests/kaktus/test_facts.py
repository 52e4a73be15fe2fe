"""The facts that a host reports: processor, memory and NUMA nodes."""

from xml.etree import ElementTree

from agent_kaktus.compute.facts import cpu_flags, numa_nodes, observe_facts
from kowa.v2.kaktus_pb2 import NumaNode

CAPABILITIES = """
<capabilities><host>
  <cpu><arch>x86_64</arch><model>EPYC-Rome</model><feature name='ht'/></cpu>
  <topology><cells num='2'>
    <cell id='1'><memory unit='KiB'>2048</memory><cpus num='1'><cpu id='5'/></cpus></cell>
    <cell id='0'><memory unit='KiB'>1024</memory>
      <cpus num='6'><cpu id='0'/><cpu id='1'/><cpu id='9'/><cpu id='2'/><cpu id='7'/><cpu id='8'/></cpus></cell>
  </cells></topology>
</host></capabilities>
"""


def test_numa_nodes_and_cpu_flags() -> None:
    found = ElementTree.fromstring(CAPABILITIES)  # noqa: S314 - ours
    assert list(numa_nodes(found)) == [
        NumaNode(id=0, cpus="0-2,7-9", memory=1 << 20),
        NumaNode(id=1, cpus="5", memory=2 << 20),
    ]
    assert cpu_flags("processor\t: 0\nflags\t\t: fpu vme avx2\n\nprocessor\t: 1\nflags\t: x\n") == [
        "avx2",
        "fpu",
        "vme",
    ]
    assert cpu_flags("processor : 0\nFeatures : fp asimd\n") == ["asimd", "fp"]


class Connection:
    """A libvirt connection with fixed answers."""

    def __init__(self, capabilities: str) -> None:
        self.capabilities = capabilities

    def getInfo(self) -> list[object]:  # noqa: N802 - libvirt's name
        return ["x86_64", 1, 8, 2000, 1, 1, 8, 1]

    def getVersion(self) -> int:  # noqa: N802 - libvirt's name
        return 7_002_022

    def getType(self) -> str:  # noqa: N802 - libvirt's name
        return "QEMU"

    def getMemoryStats(self, cells: int) -> dict[str, int]:  # noqa: N802 - libvirt's name
        return {"total": 1 << 20, "free": 1}

    def getCapabilities(self) -> str:  # noqa: N802 - libvirt's name
        return self.capabilities


def test_the_status_of_a_host() -> None:
    found = observe_facts(Connection(CAPABILITIES))
    assert (found.hypervisor, found.cpu_model, found.architecture) == ("QEMU 7.2.22", "EPYC-Rome", "x86_64")
    assert (found.cpus, found.memory, len(found.numa_nodes)) == (8, 1 << 30, 2)


def test_facts_that_libvirt_lacks_are_left_out() -> None:
    connection = Connection("<capabilities><host/></capabilities>")
    assert (observe_facts(connection).cpu_model, list(observe_facts(connection).numa_nodes)) == ("", [])
    assert cpu_flags("") == []
