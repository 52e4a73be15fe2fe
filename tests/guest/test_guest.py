"""What the small guest promises to whoever boots it through libvirt."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guest.conftest import Guest, Namespace, Room

pytestmark = pytest.mark.libvirt

METADATA_SERVICE = Path(__file__).with_name("metadata_service.py")
METADATA_ADDRESS = "169.254.169.254"
HELLO_MAC, HELLO_ADDRESS = "52:54:00:aa:bb:01", "10.200.0.11"
ASKING_MAC, ASKING_ADDRESS = "52:54:00:aa:bb:02", "10.200.0.12"
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
def hello(room: Room, key: Path) -> Guest:
    """A guest with a key, ready."""
    public = key.with_suffix(".pub").read_text()
    files = seed(network(HELLO_MAC, HELLO_ADDRESS), f"{META_DATA}public-keys:\n- {public}")
    guest = room.boot("hello", HELLO_MAC, files)
    guest.until_ready()
    return guest


@pytest.fixture
def metadata_address(namespace: Namespace) -> Iterator[str]:
    namespace.run("ip", "address", "add", f"{METADATA_ADDRESS}/32", "dev", "br0")
    yield METADATA_ADDRESS
    namespace.run("ip", "address", "delete", f"{METADATA_ADDRESS}/32", "dev", "br0")


@pytest.fixture
def metadata_service(namespace: Namespace, metadata_address: str) -> Iterator[None]:
    answers = ("hostname=asked", "instance-id=i-1", "metadata/proof=fresh")
    command = namespace.command(sys.executable, METADATA_SERVICE, metadata_address, *answers)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:
        yield
        service.send_signal(signal.SIGTERM)


def test_it_tells_what_its_seed_says(hello: Guest) -> None:
    assert hello.until_ready() == [*FROM_SEED, DISK]


def test_its_owner_logs_in_with_a_key(hello: Guest, namespace: Namespace, key: Path) -> None:
    trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    assert namespace.run("ssh", "-q", *trust, "-i", key, f"root@{HELLO_ADDRESS}", "hostname; whoami") == "hello\nroot"


def test_nobody_logs_in_with_a_password(hello: Guest, namespace: Namespace) -> None:
    offer = ["-v", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    command = namespace.command("ssh", *offer, "-o", "PubkeyAuthentication=no", f"root@{HELLO_ADDRESS}", "true")
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert "Permission denied (publickey)" in refused.stderr


def test_it_outlives_its_libvirtd(hello: Guest, room: Room, namespace: Namespace) -> None:
    before = hello.domain.ID()
    room.kill()
    namespace.run("ping", "-c", "1", "-W", "5", HELLO_ADDRESS)
    again = room.start().lookupByName("hello")
    assert again.isActive()
    assert again.ID() == before
    assert len([line for line in hello.says() if line.startswith("ready")]) == 1


def test_the_power_button_turns_it_off(room: Room) -> None:
    guest = room.boot("button", OTHER_MAC, seed(NO_NETWORK))
    guest.until_ready()
    guest.domain.shutdown()
    guest.until_off(10)


def test_its_seed_may_be_a_disk(room: Room) -> None:
    guest = room.boot("disk", OTHER_MAC, seed(NO_NETWORK), seed_bus="virtio")
    *told, disk, seed_disk = guest.until_ready()
    assert [*told, disk] == [*FROM_SEED, DISK]
    assert seed_disk.startswith("disk vdb=")
    guest.domain.destroy()


@pytest.mark.usefixtures("metadata_service")
def test_it_asks_the_metadata_service_where_one_is_routed(room: Room) -> None:
    guest = room.boot("asks", ASKING_MAC, seed(network(ASKING_MAC, ASKING_ADDRESS, metadata=True)))
    assert guest.until_ready() == ["hostname=asked", "instance-id=i-1", "proof=fresh", "source=metadata", DISK]
    guest.domain.destroy()


@pytest.mark.slow
def test_it_falls_back_to_its_seed_when_nobody_answers(room: Room, metadata_address: str) -> None:
    guest = room.boot("falls-back", ASKING_MAC, seed(network(ASKING_MAC, ASKING_ADDRESS, metadata=True)))
    failed = "metadata FAILED no answer to PUT /latest/api/token"
    assert guest.until_ready() == [failed, *FROM_SEED, DISK]
    guest.domain.destroy()
