"""`make demo`: starts the cloud, or its missing parts, and prints what it consists of."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.acceleration import acceleration
from deploy.demo import leftovers, services
from deploy.demo.cloud import Cloud
from deploy.demo.daemons import Daemon, listener_of
from deploy.demo.layout import Layout
from deploy.guest.build import build
from deploy.programs import NotStarted, await_ready, wait
from kowa import files
from kowa.client import Client
from kowa.errors import KowaError
from kowa.v2 import agent_pb2, instance_pb2

# For an instance to start, and then to print its metadata on the console.
BOOT_TIMEOUT_S = 120.0
CONSOLE_LINES = 12


def up(layout: Layout) -> None:
    """Starts the cloud. Raises SystemExit with the error and its remedy."""
    started = time.monotonic()
    _check_ports(layout)
    # Only console lines printed from now on show that an instance started, unless it has been running all along.
    printed_before = {} if services.guests(layout).pids() else _console_line_counts(layout)
    with phase("guest image"):
        build(layout.guest)
    with phase("acceleration") as note:
        accelerator = acceleration(layout.guest, layout.checkout / ".cache" / "acceleration")
        note.append("KVM" if accelerator == "kvm" else "emulation (/dev/kvm runs no guest here)")
    services.write_configuration(layout, accelerator)
    leftovers.remember(layout)
    _make_ssh_key(layout)
    with phase("kahuna"):
        services.create_admin_key(layout)
        _start(layout, services.kahuna(layout), lambda: _is_healthy(layout))
    _write_env(layout)
    with phase("gateway"):
        client = connect(layout)
        _start(layout, services.gateway(layout), lambda: _serves_api(client))
    with phase("libvirtd"):
        libvirtd = services.libvirtd(layout, kvm=accelerator == "kvm")
        _start(layout, libvirtd, (layout.libvirt / "run" / "libvirt-sock").exists)
    cloud = Cloud(client, layout)
    with phase("agent"):
        cloud.ensure_host()
        online = 'name = "kaktus-1" AND status.stream = STREAM_ONLINE'

        def has_reported() -> bool:
            return (
                any(client.of(agent_pb2.Agent).list(filter=online)) and next(client.kaktuses.list()).status.memory > 0
            )

        _start(layout, services.kaktus(layout), has_reported)
    with phase("machine"):
        instance = cloud.await_running(cloud.ensure_instance(), BOOT_TIMEOUT_S)
        if instance.power == instance_pb2.POWER_RUNNING:
            _await_metadata_lines(layout, cloud, instance, printed_before.get(instance.meta.id, 0))
    report(layout, client)
    print(f"\nThe cloud is up after {time.monotonic() - started:.1f} s.")


@contextlib.contextmanager
def phase(name: str) -> Iterator[list[str]]:
    """Prints a phase's name, then how long it took and the note that the caller appended, if any."""
    started = time.monotonic()
    notes: list[str] = []
    if sys.stdout.isatty():
        print(f"{name:<14} ...", end="\r", flush=True)
    yield notes
    note = f"  {notes[0]}" if notes else ""
    print(f"{name:<14} {time.monotonic() - started:5.1f} s{note}", flush=True)


def report(layout: Layout, client: Client) -> None:
    """Prints the instances, the addresses of the API, and commands to try next."""
    for instance in client.of(instance_pb2.Instance).list():
        addresses = [client.adapters.get(adapter).address for adapter in instance.adapters]
        power = instance_pb2.Power.Name(instance.status.power).removeprefix("POWER_").lower()
        print(f"\n{instance.name}  {power}  {', '.join(addresses)}")
        for line in console(layout, instance.meta.id)[-CONSOLE_LINES:]:
            print(f"  | {line}")
    slot = layout.slot
    print(f"""
gRPC and REST  https://localhost:{slot.gateway}
REST, plain    http://127.0.0.1:{slot.rest}/api/v2
admin key      {layout.admin_key}
CA             {layout.ca}

Next:  . .demo/env; PATH="{layout.bin}:$PATH"
       kowactl instance list
       curl -s -H "authorization: Bearer $KOWABUNGA_API_KEY" $KOWABUNGA_REST/api/v2/instances
       make status, make logs, make down""")


def console(layout: Layout, instance: str) -> list[str]:
    """The lines that an instance has printed on its serial console."""
    log = layout.kaktus / "machines" / instance / "console.log"
    try:
        return log.read_text(errors="replace").replace("\r", "").splitlines()
    except OSError:
        return []


def connect(layout: Layout) -> Client:
    """A client of the public API, through the gateway like a user's."""
    key = layout.admin_key.read_text().strip()
    return Client(f"localhost:{layout.slot.gateway}", key=key, ca=layout.ca)


def _check_ports(layout: Layout) -> None:
    """Raises SystemExit when another program listens on a port of ours."""
    for daemon in (services.kahuna(layout), services.gateway(layout)):
        ours = daemon.pids()
        for port in daemon.ports:
            listener = listener_of(port)
            if listener and listener.pid not in ours:
                raise SystemExit(
                    f"demo: port {port} is in use by {listener.program} (pid {listener.pid}): stop that; or, for other"
                    f" ports, run `make down`, remove {layout.root / 'slot.json'} and run `make demo`"
                )


def _make_ssh_key(layout: Layout) -> None:
    key, draft = layout.root / "ssh_key", layout.root / "ssh_key.new"
    if key.exists():
        return
    drafts = [draft.with_suffix(".new.pub"), draft]
    for file in drafts:
        file.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kowabunga-demo", "-f", str(draft)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    for file in drafts:
        services.chown_to_caller(file)
    # The public half first: where the key exists, so does that.
    for file, name in zip(drafts, (key.with_suffix(".pub"), key), strict=True):
        file.replace(name)


def _write_env(layout: Layout) -> None:
    slot = layout.slot
    lines = {
        "KOWABUNGA_ENDPOINT": f"localhost:{slot.gateway}",
        "KOWABUNGA_REST": f"http://127.0.0.1:{slot.rest}",
        "KOWABUNGA_API_KEY": layout.admin_key.read_text().strip(),
        "KOWABUNGA_CA": str(layout.ca),
    }
    text = "".join(f"export {name}='{value}'\n" for name, value in lines.items())
    files.write(layout.env, text.encode(), mode=0o600)
    services.chown_to_caller(layout.env)


def _start(layout: Layout, daemon: Daemon, ready: Callable[[], object]) -> None:
    """Starts a daemon unless it runs. Raises SystemExit with its last output when it ends, or is not ready in time."""
    process = daemon.start(layout)

    def serves() -> bool:
        listeners = [listener_of(port) for port in daemon.ports]
        pids = daemon.pids()
        return all(listener and listener.pid in pids for listener in listeners) and bool(ready())

    try:
        await_ready(process, serves, daemon.name, daemon.log(layout))
    except NotStarted as error:
        raise SystemExit(f"demo: {error}") from None


def _is_healthy(layout: Layout) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{layout.slot.api}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _serves_api(client: Client) -> bool:
    try:
        list(client.regions.list())
    except (KowaError, OSError):
        return False
    return True


def _console_line_counts(layout: Layout) -> dict[str, int]:
    """How many lines each instance has printed so far, by its id."""
    return {folder.name: len(console(layout, folder.name)) for folder in (layout.kaktus / "machines").glob("*")}


def _await_metadata_lines(layout: Layout, cloud: Cloud, instance: instance_pb2.Instance, printed_before: int) -> None:
    """Waits until the console has new lines with the metadata and its source: the service, not the seed."""
    for line in (f"proof={instance.metadata['proof']}", "source=metadata"):
        wanted = f"kowabunga: {line}"
        if not wait(lambda: wanted in console(layout, instance.meta.id)[printed_before:], BOOT_TIMEOUT_S):  # noqa: B023
            raise SystemExit(f"demo: the console of {instance.name} does not show {line}; {cloud.problems(instance)}")
