"""A private libvirtd in a network namespace with a bridge, and guests on it. Needs root."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pycdlib
import pytest

from deploy import programs
from deploy.acceleration import acceleration
from deploy.guest.build import IMAGE, build
from deploy.programs import until

CHECKOUT = Path(__file__).parents[2]
LIBVIRTD = CHECKOUT / "deploy" / "host" / "private-libvirtd"
BRIDGE = "br0"
HOST_ADDRESS = "10.200.0.1"

CONNECT_TIMEOUT_S = 30
BOOT_TIMEOUT_S = 60

libvirt.registerErrorHandler(lambda *_: None, None)


@dataclass
class Namespace:
    """A network namespace with a bridge: the host's side of a guest's network."""

    name: str

    def command(self, *command: str | Path) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, *command: str | Path) -> str:
        """The output of a command; fails with its error output."""
        result = subprocess.run(self.command(*command), check=False, capture_output=True, text=True, timeout=30)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


@dataclass
class Guest:
    domain: libvirt.virDomain
    console: Path

    def printed(self) -> list[str]:
        """The lines of its boot client, without their prefix."""
        lines = self.console.read_text(errors="replace").splitlines()
        return [line.removeprefix("kowabunga: ") for line in lines if line.startswith("kowabunga: ")]

    def until_ready(self) -> list[str]:
        """Waits until it is ready; returns the lines of its boot client before `ready`."""

        def lines_before_ready() -> list[str] | None:
            lines = self.printed()
            ready = [line.startswith("ready ") for line in lines]
            return lines[: ready.index(True)] if any(ready) else None

        found = until(lines_before_ready, timeout=BOOT_TIMEOUT_S, what=f"ready on {self.console}")
        assert found is not None
        return found

    def until_off(self, limit: float) -> None:
        until(lambda: not self.domain.isActive(), timeout=limit, what=f"{self.domain.name()} off")


@dataclass
class PrivateLibvirtd:
    """A libvirtd with its files below `root`, and its guests."""

    root: Path
    namespace: Namespace
    virt: str
    image: Path
    daemon: subprocess.Popen[bytes] | None = None
    guests: list[Guest] = field(default_factory=list)

    def start(self) -> libvirt.virConnect:
        environment = {"KVM": "1" if self.virt == "kvm" else ""}
        self.daemon = programs.start(self.namespace.command(LIBVIRTD, self.root), environment=environment)
        return until(self._connected, timeout=CONNECT_TIMEOUT_S, what="libvirtd answers")

    def kill(self) -> None:
        """Ends the daemon as a crash would."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait(60)

    def close(self) -> None:
        """Ends the guests, then the daemon."""
        for guest in self.guests:
            if connection := self._connected():
                domain = connection.lookupByUUID(guest.domain.UUID())
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
        if self.daemon is not None:
            programs.end(self.daemon)

    def boot(self, name: str, mac: str, seed: dict[str, str], *, seed_bus: str = "scsi") -> Guest:
        """Boots a guest of 128 MiB on the bridge, with the seed as CD-ROM (scsi) or second disk (virtio)."""
        files = self.root / "guests" / name
        files.mkdir(parents=True)
        shutil.copyfile(self.image, files / "disk.qcow2")
        (files / "seed.iso").write_bytes(iso(seed))
        (files / "console").touch()
        connection = self._connected()
        assert connection is not None
        domain = connection.defineXML(domain_xml(name, mac, files, self.virt, seed_bus))
        guest = Guest(domain, files / "console")
        self.guests.append(guest)
        domain.create()
        return guest

    def _connected(self) -> libvirt.virConnect | None:
        try:
            return libvirt.open(f"qemu+unix:///system?socket={self.root}/run/libvirt-sock")
        except libvirt.libvirtError:
            return None


def iso(files: dict[str, str]) -> bytes:
    """A NoCloud seed, as an ISO image."""
    volume = pycdlib.PyCdlib()
    volume.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        volume.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    image = io.BytesIO()
    volume.write_fp(image)
    volume.close()
    return image.getvalue()


def domain_xml(name: str, mac: str, files: Path, virt: str, seed_bus: str) -> str:
    kind, target = ("cdrom", "sda") if seed_bus == "scsi" else ("disk", "vdb")
    cache = "<tcg><tb-cache unit='MiB'>64</tb-cache></tcg>" if virt == "qemu" else ""
    return f"""
    <domain type='{virt}'>
      <name>{name}</name>
      <memory unit='MiB'>128</memory>
      <vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
      <features><acpi/>{cache}</features>
      <devices>
        <disk type='file' device='disk'>
          <driver name='qemu' type='qcow2'/>
          <source file='{files}/disk.qcow2'/><target dev='vda' bus='virtio'/>
        </disk>
        <controller type='scsi' model='virtio-scsi'/>
        <disk type='file' device='{kind}'>
          <driver name='qemu' type='raw'/>
          <source file='{files}/seed.iso'/><target dev='{target}' bus='{seed_bus}'/><readonly/>
        </disk>
        <interface type='bridge'>
          <mac address='{mac}'/><source bridge='{BRIDGE}'/><model type='virtio'/><rom enabled='no'/>
        </interface>
        <serial type='file'><source path='{files}/console' append='on'/></serial>
        <memballoon model='none'/>
      </devices>
    </domain>"""


@pytest.fixture(scope="session")
def guest_files() -> Path:
    """Directory with the guest image, its kernel and initrd, built once."""
    files = CHECKOUT / ".cache" / "guest"
    build(files)
    return files


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    name = f"guests-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        namespace = Namespace(name)
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "link", "add", BRIDGE, "type", "bridge")
        namespace.run("ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", BRIDGE)
        namespace.run("ip", "link", "set", BRIDGE, "up")
        yield namespace


@pytest.fixture(scope="module")
def libvirtd(
    tmp_path_factory: pytest.TempPathFactory, namespace: Namespace, guest_files: Path
) -> Iterator[PrivateLibvirtd]:
    virt = acceleration(guest_files, CHECKOUT / ".cache" / "acceleration")
    libvirtd = PrivateLibvirtd(tmp_path_factory.mktemp("libvirtd"), namespace, virt, guest_files / IMAGE)
    libvirtd.start()
    yield libvirtd
    libvirtd.close()
