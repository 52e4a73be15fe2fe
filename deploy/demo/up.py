"""`make demo`: brings the cloud up, or what is missing of it, and shows what is there."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.acceleration import acceleration
from deploy.demo import leftovers, site
from deploy.demo.cloud import Cloud, wait
from deploy.demo.daemons import Daemon, listener_of
from deploy.demo.house import House, write_whole
from deploy.guest.build import build
from kowa.client import Client
from kowa.errors import KowaError
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
        _start(house, site.kahuna(house), lambda: _is_healthy(house))
    _write_env(house)
    with phase("gateway"):
        client = connect(house)
        _start(house, site.gateway(house), lambda: _answers(client))
    with phase("libvirtd"):
        libvirtd = site.libvirtd(house, kvm=accelerator == "kvm")
        _start(house, libvirtd, (house.libvirt / "run" / "libvirt-sock").exists)
    cloud = Cloud(client, house)
    with phase("agent"):
        cloud.ensure_host()
        online = 'name = "kaktus-1" AND status.stream = STREAM_ONLINE'

        def reports() -> bool:
            return (
                any(client.of(agent_pb2.Agent).list(filter=online)) and next(client.kaktuses.list()).status.memory > 0
            )

        _start(house, site.kaktus(house), reports)
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
    """Raises SystemExit when a stranger listens on a port of ours."""
    for daemon in (site.kahuna(house), site.gateway(house)):
        ours = daemon.pids()
        for port in daemon.ports:
            listener = listener_of(port)
            if listener and listener.pid not in ours:
                raise SystemExit(
                    f"demo: port {port} is in use by {listener.program} (pid {listener.pid}): stop that; or, for other"
                    f" ports, run `make down`, remove {house.root / 'slot.json'} and run `make demo`"
                )


def _make_ssh_key(house: House) -> None:
    key, draft = house.root / "ssh_key", house.root / "ssh_key.new"
    if key.exists():
        return
    drafts = [draft.with_suffix(".new.pub"), draft]
    for file in drafts:
        file.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kowabunga-demo", "-f", str(draft)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    for file in drafts:
        site.hand_to_caller(file)
    # Who finds the key finds its public half, too.
    for file, name in zip(drafts, (key.with_suffix(".pub"), key), strict=True):
        file.replace(name)


def _write_env(house: House) -> None:
    slot = house.slot
    lines = {
        "KOWABUNGA_ENDPOINT": f"localhost:{slot.gateway}",
        "KOWABUNGA_REST": f"http://127.0.0.1:{slot.rest}",
        "KOWABUNGA_API_KEY": house.admin_key.read_text().strip(),
        "KOWABUNGA_CA": str(house.ca),
    }
    write_whole(house.env, "".join(f"export {name}='{value}'\n" for name, value in lines.items()), mode=0o600)
    site.hand_to_caller(house.env)


def _start(house: House, daemon: Daemon, ready: Callable[[], object]) -> None:
    """Starts it unless it runs. Raises SystemExit when it ends, or is not ready in time, with the last it said."""
    process = daemon.start(house)

    def ended() -> bool:
        return process is not None and process.poll() is not None

    def serves() -> bool:
        listeners = [listener_of(port) for port in daemon.ports]
        pids = daemon.pids()
        return all(listener and listener.pid in pids for listener in listeners) and bool(ready())

    if not wait(lambda: ended() or serves(), START) or ended():
        log = daemon.log(house)
        last = (
            next(reversed(log.read_text(errors="replace").split("\n")[:-1]), "nothing") if log.exists() else "nothing"
        )
        raise SystemExit(f"demo: {daemon.name} did not start; the last it said in {log}: {last}")


def _is_healthy(house: House) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{house.slot.api}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _answers(client: Client) -> bool:
    try:
        list(client.regions.list())
    except (KowaError, OSError):
        return False
    return True


def _heard(house: House) -> dict[str, int]:
    """How many lines each machine has printed so far."""
    return {folder.name: len(console(house, folder.name)) for folder in (house.kaktus / "machines").glob("*")}


def _await_proof(house: House, cloud: Cloud, machine: instance_pb2.Instance, seen: int) -> None:
    """From the metadata service: its seed knows it too."""
    for line in (f"proof={machine.metadata['proof']}", "source=metadata"):
        if not wait(lambda shown=f"kowabunga: {line}": shown in console(house, machine.meta.id)[seen:], BOOT):  # type: ignore[misc]
            raise SystemExit(f"demo: the console of {machine.name} does not show {line}; {cloud.complaint(machine)}")
