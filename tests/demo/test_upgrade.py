"""A demo of an earlier version is upgraded by `git pull && make demo` while its instance runs.

BASE is the last commit of the issue closed before this one. When an issue is closed, set BASE to its last commit
(`git rev-parse --short=12 HEAD` on the main branch) and add one of each kind that is new by then to OLD_RESOURCES, so
that the next version must take over what users have of that one.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.demo.checkout import KINDS, ROOT, Checkout
from tests.waiting import until

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

BASE = "aeadac11098c"
ALL_KINDS = (*KINDS, "kiwi", "agent-token", "kompute")
# kowactl's arguments for resources with values that later versions may refuse in new ones, but must go on to serve.
OLD_RESOURCES = (
    "volume create --project demo --name older-os --storage-pool local --template kowa-guest --size 512M",
    "adapter create --project demo --name older-eth0 --subnet demo",
    "instance create --project demo --name older --zone demo-a --vcpus 1 --memory 128M --power stopped"
    " --volumes older-os --adapters older-eth0 --ssh-keys @.demo/ssh_key.pub --label env=old"
    " --metadata k8s.io/role=web --metadata 'a b=c' --user-data $'#cloud-config\\r\\n{}\\r\\n'",
    "vnet create --region demo --project demo --name own",
    "subnet create --vnet own --name own --cidr 10.99.0.0/24",
    "kompute create --project demo --name pack --region demo --vcpus 1 --memory 128M --template kowa-guest --disk 512M"
    " --data-disk 64M --adapter subnet=own --adapter subnet=demo",
    "agent create --name kiwi-agent",
    "kiwi create --region demo --name kiwi-1 --member agent=kiwi-agent,zone=demo-a,underlay-address=10.1.2.3",
    "region create --name elsewhere --description 'with ümlauts and \"quotes\"'",
)


@dataclass
class Demo:
    """A demo in use, its state before the upgrade, and the output of the upgrade."""

    checkout: Checkout
    head: str
    pids: dict[str, list[int]]
    ids: dict[str, list[str]]
    operations: set[str]
    boot_id: str
    address: str
    ping: "subprocess.Popen[str]"
    output: str = field(default="")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A new clone, of the version under test."""
    lookup = subprocess.run(["git", "cat-file", "-e", f"{BASE}^{{commit}}"], cwd=ROOT, check=False, capture_output=True)
    if lookup.returncode != 0:
        pytest.fail(f"this clone's history does not reach back to {BASE}: `git fetch --unshallow`", pytrace=False)
    checkout = Checkout(tmp_path_factory.mktemp("upgrade") / "kowabunga")
    try:
        yield checkout
    finally:
        checkout.run("make -s down")


@pytest.fixture(scope="module")
def demo(checkout: Checkout) -> Iterator[Demo]:
    """The base version's demo, used by its own kowactl, then upgraded while its instance is pinged."""
    head = checkout.run("git rev-parse HEAD").strip()
    checkout.run(f"git reset --quiet --hard {BASE} && make demo")
    for arguments in OLD_RESOURCES:
        checkout.kowactl(arguments)
    address = json.loads(checkout.kowactl("adapter get hello-eth0 -o json"))["address"]
    until(lambda: checkout.succeeds(f"ping -c 1 -W 1 {address}"), timeout=120, what=f"a ping of {address}")
    boot_id = until(lambda: _boot_id(checkout, address), timeout=120, what="a login by SSH")
    ping = subprocess.Popen(["ping", "-n", "-i", "0.2", address], stdout=subprocess.PIPE, text=True)
    try:
        pids, ids = checkout.pids(), checkout.ids_by_kind(ALL_KINDS)
        demo = Demo(checkout, head, pids, ids, _operations(checkout), boot_id, address, ping)
        demo.output = checkout.run(f"git merge --quiet --ff-only {head} && make demo")
        yield demo
    finally:
        ping.kill()
        ping.wait()


def test_changed_programs_are_restarted_and_the_instance_runs_on(demo: Demo) -> None:
    assert "hello  running" in demo.output
    before, after = demo.pids, demo.checkout.pids()
    assert after["guests"] == before["guests"]
    changed = demo.checkout.run(f"git diff --name-only {BASE} {demo.head}").splitlines()
    for name, folder in (("kahuna", "server/"), ("kaktus", "agent_kaktus/"), ("gateway", "gateway/")):
        has_changed = any(path.startswith((folder, "sdk/", "pyproject.toml")) for path in changed)
        assert (after[name] != before[name]) == has_changed, name
    assert _boot_id(demo.checkout, demo.address) == demo.boot_id


def test_the_instance_answers_every_ping_during_the_upgrade(demo: Demo) -> None:
    demo.ping.terminate()
    output, _ = demo.ping.communicate()
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", output)]
    assert len(answered) > 10
    missing = set(range(1, max(answered) + 1)) - set(answered)
    assert not missing, f"of {max(answered)} pings these were not answered: {sorted(missing)}"


def test_all_resources_are_kept_and_ready(demo: Demo) -> None:
    assert demo.checkout.ids_by_kind(ALL_KINDS) == demo.ids
    assert _operations(demo.checkout) >= demo.operations
    states = {
        f"{kind} {found.get('name', found['meta']['id'])}": found["meta"].get("state")
        for kind in ALL_KINDS
        for found in json.loads(demo.checkout.kowactl(f"{kind} list -o json"))
    }
    assert {name: state for name, state in states.items() if state not in (None, "STATE_READY")} == {}


def test_the_new_kowactl_works_on_older_resources(demo: Demo) -> None:
    checkout = demo.checkout
    checkout.kowactl("instance start older")
    checkout.kowactl("instance update older --description 'as it was'")
    assert checkout.console("hello", prompt="kowabunga: proof=", line="echo $((6 * 7))-here", response="42-here") == 0
    checkout.kowactl("instance delete older")
    checkout.kowactl("volume delete older-os")
    checkout.kowactl("adapter delete older-eth0")
    checkout.kowactl("kompute update pack --memory 192M --data-disk 96M")
    checkout.kowactl("kompute delete pack")
    checkout.kowactl("subnet delete own/own")
    checkout.kowactl("vnet delete own")
    checkout.kowactl("kiwi delete kiwi-1")
    checkout.kowactl("agent delete kiwi-agent")
    checkout.kowactl("region delete elsewhere")
    assert checkout.domains() == [f"kowa-{id_}" for id_ in checkout.ids_by_kind(["instance"])["instance"]]


def test_a_second_make_demo_changes_nothing(demo: Demo) -> None:
    checkout = demo.checkout
    before = checkout.pids(), checkout.ids_by_kind(ALL_KINDS), checkout.kowactl("instance get hello -o json")
    checkout.run("make demo")
    assert (checkout.pids(), checkout.ids_by_kind(ALL_KINDS), checkout.kowactl("instance get hello -o json")) == before
    assert set(before[0]["guests"]) <= set(demo.pids["guests"])


def test_make_down_leaves_nothing_of_either_version(demo: Demo) -> None:
    demo.checkout.run("make -s down")
    assert demo.checkout.run("make -s leftovers") == "nothing is left\n"


def _operations(checkout: Checkout) -> set[str]:
    return {operation["meta"]["id"] for operation in json.loads(checkout.kowactl("operation list -o json"))}


def _boot_id(checkout: Checkout, address: str) -> str:
    """The random boot id of the guest's kernel; empty while the guest does not answer."""
    options = "-i .demo/ssh_key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    command = f"ssh -q {options} -o ConnectTimeout=20 root@{address} cat /proc/sys/kernel/random/boot_id || true"
    return checkout.run(command).strip()
