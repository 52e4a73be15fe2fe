"""The test guest image, booted by libvirt: output, login, shutdown, seed and metadata."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guest.conftest import Guest, Namespace, PrivateLibvirtd

pytestmark = pytest.mark.libvirt

METADATA_SERVICE = Path(__file__).with_name("metadata_service.py")
METADATA_ADDRESS = "169.254.169.254"
READY_GUEST_MAC, READY_GUEST_ADDRESS = "52:54:00:aa:bb:01", "10.200.0.11"
METADATA_GUEST_MAC, METADATA_GUEST_ADDRESS = "52:54:00:aa:bb:02", "10.200.0.12"
OTHER_MAC = "52:54:00:aa:bb:03"
DISK = f"disk vda={32 << 20}"

META_DATA = """\
instance-id: 0b0c7d9e-9f54-4d0c-8d35-2f6a3f3f9f10
local-hostname: hello
metadata:
  proof: '5f2c'
"""

FROM_SEED = ["hostname=hello", "instance-id=0b0c7d9e-9f54-4d0c-8d35-2f6a3f3f9f10", "proof=5f2c", "source=seed"]


NO_NETWORK = "version: 2\n"


def network(mac: str, address: str, *, metadata: bool = False) -> str:
    route = f"    - to: {METADATA_ADDRESS}/32\n      scope: link\n" if metadata else ""
    return f"""\
version: 2
ethernets:
  eth0:
    match:
      macaddress: {mac.upper()}
    set-name: eth0
    addresses:
    - {address}/24
    routes:
    - to: 0.0.0.0/0
      via: 10.200.0.1
{route}"""


def seed(network: str, meta_data: str = META_DATA) -> dict[str, str]:
    return {"meta-data": meta_data, "user-data": "#cloud-config\n{}\n", "network-config": network}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    return file


@pytest.fixture(scope="module")
def ready_guest(libvirtd: PrivateLibvirtd, key: Path) -> Guest:
    """A guest that has booted, with an SSH key."""
    public = key.with_suffix(".pub").read_text()
    files = seed(network(READY_GUEST_MAC, READY_GUEST_ADDRESS), f"{META_DATA}public-keys:\n- {public}")
    guest = libvirtd.boot("hello", READY_GUEST_MAC, files)
    guest.until_ready()
    return guest


@pytest.fixture
def metadata_address(namespace: Namespace) -> Iterator[str]:
    namespace.run("ip", "address", "add", f"{METADATA_ADDRESS}/32", "dev", "br0")
    yield METADATA_ADDRESS
    namespace.run("ip", "address", "delete", f"{METADATA_ADDRESS}/32", "dev", "br0")


@pytest.fixture
def metadata_service(namespace: Namespace, metadata_address: str) -> Iterator[None]:
    bodies = ("hostname=served", "instance-id=i-1", "metadata/proof=fresh")
    command = namespace.command(sys.executable, METADATA_SERVICE, metadata_address, *bodies)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:
        yield
        service.send_signal(signal.SIGTERM)


def test_guest_prints_its_seed_values(ready_guest: Guest) -> None:
    assert ready_guest.until_ready() == [*FROM_SEED, DISK]


def test_login_with_the_ssh_key_works(ready_guest: Guest, namespace: Namespace, key: Path) -> None:
    ssh_options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    assert (
        namespace.run("ssh", "-q", *ssh_options, "-i", key, f"root@{READY_GUEST_ADDRESS}", "hostname; whoami")
        == "hello\nroot"
    )


def test_password_login_is_not_offered(ready_guest: Guest, namespace: Namespace) -> None:
    ssh_options = ["-v", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    command = namespace.command(
        "ssh", *ssh_options, "-o", "PubkeyAuthentication=no", f"root@{READY_GUEST_ADDRESS}", "true"
    )
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert "Permission denied (publickey)" in refused.stderr


def test_guest_outlives_a_crash_of_libvirtd(
    ready_guest: Guest, libvirtd: PrivateLibvirtd, namespace: Namespace
) -> None:
    before = ready_guest.domain.ID()
    libvirtd.kill()
    namespace.run("ping", "-c", "1", "-W", "5", READY_GUEST_ADDRESS)
    domain = libvirtd.start().lookupByName("hello")
    assert domain.isActive()
    assert domain.ID() == before
    assert len([line for line in ready_guest.printed() if line.startswith("ready")]) == 1


def test_the_power_button_turns_the_guest_off(libvirtd: PrivateLibvirtd) -> None:
    guest = libvirtd.boot("button", OTHER_MAC, seed(NO_NETWORK))
    guest.until_ready()
    guest.domain.shutdown()
    guest.until_off(10)


def test_the_seed_may_be_a_disk(libvirtd: PrivateLibvirtd) -> None:
    guest = libvirtd.boot("disk", OTHER_MAC, seed(NO_NETWORK), seed_bus="virtio")
    *values, disk, seed_disk = guest.until_ready()
    assert [*values, disk] == [*FROM_SEED, DISK]
    assert seed_disk.startswith("disk vdb=")
    guest.domain.destroy()


@pytest.mark.usefixtures("metadata_service")
def test_guest_reads_the_metadata_service_if_a_route_leads_there(libvirtd: PrivateLibvirtd) -> None:
    guest = libvirtd.boot(
        "reads-metadata", METADATA_GUEST_MAC, seed(network(METADATA_GUEST_MAC, METADATA_GUEST_ADDRESS, metadata=True))
    )
    assert guest.until_ready() == ["hostname=served", "instance-id=i-1", "proof=fresh", "source=metadata", DISK]
    guest.domain.destroy()


@pytest.mark.slow
def test_guest_falls_back_to_its_seed_without_a_metadata_service(
    libvirtd: PrivateLibvirtd, metadata_address: str
) -> None:
    guest = libvirtd.boot(
        "falls-back", METADATA_GUEST_MAC, seed(network(METADATA_GUEST_MAC, METADATA_GUEST_ADDRESS, metadata=True))
    )
    failed = "metadata FAILED no answer to PUT /latest/api/token"
    assert guest.until_ready() == [failed, *FROM_SEED, DISK]
    guest.domain.destroy()
