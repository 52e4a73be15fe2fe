"""`make demo`: brings the cloud up, or what is missing of it, and shows what is there."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.acceleration import acceleration
from deploy.demo import leftovers, site
from deploy.demo.cloud import Cloud, wait
from deploy.demo.house import House
from deploy.guest.build import build
from kowa.client import Client
from kowa.v2 import agent_pb2, instance_pb2

# How long each part may take, in seconds.
START, BOOT = 30.0, 120.0
CONSOLE_LINES = 12


def up(house: House) -> None:
    """Raises SystemExit with what is wrong and what helps."""
    begun = time.monotonic()
    _check_ports(house)
    # What a machine said before this run proves nothing, unless it has been running since.
    heard = {} if site.guests(house).pids() else _heard(house)
    with phase("guest image"):
        build(house.guest)
    with phase("acceleration") as note:
        accelerator = acceleration(house.guest, house.checkout / ".cache" / "acceleration")
        note.append("KVM" if accelerator == "kvm" else "emulation (/dev/kvm runs no guest here)")
    site.write_configuration(house, accelerator)
    leftovers.remember(house)
    _make_ssh_key(house)
    with phase("kahuna"):
        site.draw_admin_key(house)
        site.kahuna(house).start(house)
        _await_health(house)
    _write_env(house)
    with phase("gateway"):
        site.gateway(house).start(house)
        client = _await_gateway(house)
    with phase("libvirtd"):
        site.libvirtd(house, kvm=accelerator == "kvm").start(house)
        _await(lambda: (house.libvirt / "run" / "libvirt-sock").exists(), "libvirtd", house)
    cloud = Cloud(client, house)
    with phase("agent"):
        cloud.ensure_host()
        site.kaktus(house).start(house)
        online = 'name = "kaktus-1" AND status.stream = STREAM_ONLINE'
        _await(lambda: list(client.of(agent_pb2.Agent).list(filter=online)), "kaktus", house)
        _await(lambda: next(client.kaktuses.list()).status.memory, "kaktus", house)
    with phase("machine"):
        machine = cloud.ensure_machine()
        machine = cloud.start(machine, BOOT)
        if machine.power == instance_pb2.POWER_RUNNING:
            _await_proof(house, cloud, machine, heard.get(machine.meta.id, 0))
    report(house, client)
    print(f"\nThe cloud is up after {time.monotonic() - begun:.1f} s.")


@contextlib.contextmanager
def phase(name: str) -> Iterator[list[str]]:
    """Says that a phase begins, and how long it took; what is appended is said with it."""
    begun = time.monotonic()
    notes: list[str] = []
    if sys.stdout.isatty():
        print(f"{name:<14} ...", end="\r", flush=True)
    yield notes
    said = f"  {notes[0]}" if notes else ""
    print(f"{name:<14} {time.monotonic() - begun:5.1f} s{said}", flush=True)


def report(house: House, client: Client) -> None:
    """What there is, where, and what to type next."""
    for machine in client.of(instance_pb2.Instance).list():
        addresses = [client.adapters.get(adapter).address for adapter in machine.adapters]
        power = instance_pb2.Power.Name(machine.status.power).removeprefix("POWER_").lower()
        print(f"\n{machine.name}  {power}  {', '.join(addresses)}")
        for line in console(house, machine.meta.id)[-CONSOLE_LINES:]:
            print(f"  | {line}")
    slot = house.slot
    print(f"""
gRPC and REST  https://localhost:{slot.gateway}
REST, plain    http://127.0.0.1:{slot.rest}/api/v2
admin key      {house.admin_key}
CA             {house.ca}

Next:  . .demo/env; PATH="{house.bin}:$PATH"
       kowactl instance list
       curl -s -H "authorization: Bearer $KOWABUNGA_API_KEY" $KOWABUNGA_REST/api/v2/instances
       make status, make logs, make down""")


def console(house: House, machine: str) -> list[str]:
    """What a machine has printed on its serial console."""
    log = house.kaktus / "machines" / machine / "console.log"
    try:
        return log.read_text(errors="replace").replace("\r", "").splitlines()
    except OSError:
        return []


def connect(house: House) -> Client:
    """The public API, as users reach it."""
    key = house.admin_key.read_text().strip()
    return Client(f"localhost:{house.slot.gateway}", key=key, ca=house.ca)


def _check_ports(house: House) -> None:
    """Ports of ours on which a stranger listens."""
    if any(daemon.pids() for daemon in site.all_daemons(house)):
        return
    busy = house.busy_ports()
    if busy:
        raise SystemExit(
            f"demo: port {busy[0]} is in use by another program: stop it, or remove {house.root / 'slot.json'}"
        )


def _make_ssh_key(house: House) -> None:
    key = house.root / "ssh_key"
    if not key.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kowabunga-demo", "-f", str(key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        for file in (key, key.with_suffix(".pub")):
            site.hand_to_caller(file)


def _write_env(house: House) -> None:
    slot = house.slot
    lines = {
        "KOWABUNGA_ENDPOINT": f"localhost:{slot.gateway}",
        "KOWABUNGA_REST": f"http://127.0.0.1:{slot.rest}",
        "KOWABUNGA_API_KEY": house.admin_key.read_text().strip(),
        "KOWABUNGA_CA": str(house.ca),
    }
    house.env.touch(mode=0o600)
    house.env.write_text("".join(f"export {name}='{value}'\n" for name, value in lines.items()))
    site.hand_to_caller(house.env)


def _await(condition: object, name: str, house: House) -> None:
    assert callable(condition)
    if not wait(condition, START):
        raise SystemExit(f"\ndemo: {name} is not there after {START:g} s; {house.logs / name}.log says why")


def _await_health(house: House) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{house.slot.api}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def serving() -> bool:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        _await(serving, "kahuna", house)


def _await_gateway(house: House) -> Client:
    client = connect(house)

    def answers() -> bool:
        try:
            list(client.regions.list())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said when the time is up
            os.environ["KOWABUNGA_LAST_ERROR"] = str(error)
            return False
        return True

    _await(answers, "gateway", house)
    return client


def _heard(house: House) -> dict[str, int]:
    """How many lines each machine has printed so far."""
    return {folder.name: len(console(house, folder.name)) for folder in (house.kaktus / "machines").glob("*")}


def _await_proof(house: House, cloud: Cloud, machine: instance_pb2.Instance, seen: int) -> None:
    """From the metadata service: its seed knows it too."""
    for line in (f"proof={machine.metadata['proof']}", "source=metadata"):
        if not wait(lambda shown=f"kowabunga: {line}": shown in console(house, machine.meta.id)[seen:], BOOT):  # type: ignore[misc]
            raise SystemExit(f"\ndemo: the console of {machine.name} does not show {line}; {cloud.complaint(machine)}")
