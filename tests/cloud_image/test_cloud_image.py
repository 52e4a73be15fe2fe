"""A full Debian with cloud-init, from the import of its image to its shutdown."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_kaktus import names
from kowa.v2 import instance_pb2
from tests.kaktus.hosts import Host, private_host
from tests.kaktus.slices import MIB, Slice, id_of, slice_with_network
from tests.kaktus.test_real import RUNNING, STOPPED, is_off, is_running
from tests.waiting import until

from .build import CACHE, build

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

WEB = id_of("web")
ADDRESS, MAC = "10.9.0.2", "02:00:00:00:00:01"
DISK = 3072 * MIB  # twice the image
BOOT_TIMEOUT_S = 240.0  # under emulation on a busy machine
SHUTDOWN_TIMEOUT_S = 60.0  # then the agent cuts the power
MOTTO = "written by cloud-init"
USER_DATA = f"""\
#cloud-config
users:
  - default
  - name: ada
    shell: /bin/bash
    ssh_authorized_keys: ["KEY"]
write_files:
  - path: /etc/motto
    content: {MOTTO}
runcmd:
  - echo "runcmd says $(hostname)" > /dev/ttyS0
"""
QUESTIONS = {
    "user": "whoami",
    "hostname": "hostname",
    "instance-id": "cat /var/lib/cloud/data/instance-id",
    "motto": "cat /etc/motto",
    "address": "ip -brief -4 address show dev eth0 | awk '{print $3}'",
    "routes": "ip route show dev eth0 | sed 's/ *$//' | sort | paste -sd,",
    "root": "findmnt --noheadings --bytes --output SIZE / | tr -d ' '",
    "status": "cloud-init status --wait | sed -n 's/.*status: //p'",
}


@pytest.fixture(scope="module")
def image() -> tuple[str, str]:
    """Its name in CACHE, and its checksum."""
    return build()


@pytest.fixture
def host() -> Iterator[Host]:
    with private_host() as made:
        yield made


def new_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path.with_suffix(".pub").read_text().strip()


def desired(image: tuple[str, str], key: str) -> Slice:
    slice_ = slice_with_network()
    slice_.template("debian", *image)
    slice_.volume("root", DISK, "debian")
    slice_.adapter("nic", ADDRESS, MAC)
    set_machine(slice_, key)
    return slice_


def set_machine(slice_: Slice, key: str, power: instance_pb2.Power = RUNNING) -> None:
    slice_.instance(
        "web",
        ("root",),
        ("nic",),
        power=power,
        vcpus=2,
        memory=512 * MIB,
        ssh_keys=(key,),
        user_data=USER_DATA.replace("KEY", key),
    )


def ssh(host: Host, key: Path, user: str, command: str) -> str:
    """The command's output; empty while the user is not let in."""
    options = ["BatchMode=yes", "ConnectTimeout=20", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    options = [word for option in options for word in ("-o", option)]
    return host.run("ssh", "-q", "-F", "none", "-i", str(key), *options, f"{user}@{ADDRESS}", command, check=False)


def answers(host: Host, key: Path) -> dict[str, str]:
    script = "\n".join(f"echo {name}=$({command})" for name, command in QUESTIONS.items())
    output = ssh(host, key, "ada", f"bash -c {shlex.quote(script)}")
    return dict(line.split("=", 1) for line in output.splitlines())


def test_debian_boots_is_set_up_by_its_seed_and_shuts_down(image: tuple[str, str], tmp_path: Path, host: Host) -> None:
    key_file = tmp_path / "key"
    key = new_key(key_file)
    slice_ = desired(image, key)
    settings = {
        "import_dir": str(CACHE),
        "tcg_cache_mib": 256,
        "hold_gateway": True,
        "shutdown_limit": SHUTDOWN_TIMEOUT_S,
    }
    with host.agent(**settings) as agent:
        agent.send(slice_.objects)
        agent.until(WEB, is_running, 90)  # the import included
        finished = "Datasource DataSourceNoCloud [seed=/dev/sr0]"
        until(lambda: finished in host.console(WEB), timeout=BOOT_TIMEOUT_S, what="cloud-init has finished")
        assert "runcmd says web" in host.console(WEB)

        found = until(lambda: answers(host, key_file), timeout=60, what="ada may log in")
        grown = int(found.pop("root"))
        assert found == {
            "user": "ada",
            "hostname": "web",
            "instance-id": WEB,
            "motto": MOTTO,
            "address": f"{ADDRESS}/24",
            "routes": f"10.9.0.0/24 proto kernel scope link src {ADDRESS},"
            "169.254.169.254 proto static scope link,default via 10.9.0.1 proto static",
            "status": "done",
        }
        assert grown > DISK * 9 // 10  # without what ext4 keeps for itself
        assert ssh(host, key_file, "debian", "whoami").strip() == "debian"  # the image's own user has the seed's keys

        set_machine(slice_, key, power=STOPPED)
        agent.send(slice_.objects)
        agent.until(WEB, is_off, SHUTDOWN_TIMEOUT_S - 5)  # before the agent would cut its power
        assert "reboot: Power down" in host.console(WEB)
        assert host.virsh("domstate", names.domain(WEB)) == "shut off"
