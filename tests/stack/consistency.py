"""What must be equal as sets: what the API says there is, and what the host and the database hold."""

import contextlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from agent_kaktus import names
from kowa.v2 import (
    adapter_pb2,
    instance_pb2,
    kaktus_pb2,
    operation_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
)
from tests.stack.stack import Stack
from tests.waiting import until

CONVERGE_LIMIT_S = 90.0
ON = (instance_pb2.POWER_RUNNING, instance_pb2.POWER_SUSPENDED)


def await_equal(stack: Stack, limit: float = CONVERGE_LIMIT_S) -> None:
    """Waits until nothing is under way and both sides are the same. Raises TimeoutError with what differs.

    A program that has ended by itself is not waited for.
    """
    found: list[str] = []

    def same() -> bool:
        assert not stack.faults
        found[:] = under_way(stack) or differences(stack)
        return not found

    try:
        until(same, timeout=limit)
    except TimeoutError:
        raise TimeoutError(f"after {limit:g} s: " + "; ".join(found)) from None


def under_way(stack: Stack) -> list[str]:
    """The operations that have not ended."""
    found = []
    for phase in ("PHASE_RUNNING", "PHASE_WAITING"):
        found += stack.list(operation_pb2.Operation, f"phase = {phase}")
    return [f"{found.method} of {found.target_name} is open: {found.message}" for found in found]


def differences(stack: Stack) -> list[str]:
    """What is on one side only."""
    machines = stack.list(instance_pb2.Instance)
    adapters = stack.list(adapter_pb2.Adapter)
    pools = stack.list(storage_pool_pb2.StoragePool)
    images = ids(stack.list(volume_pb2.Volume)) + ids(stack.list(template_pb2.Template))
    running = [machine for machine in machines if machine.status.power in ON]
    plugged = [names.tap(id_) for machine in running for id_ in machine.adapters]
    taps = [names.tap(id_) for id_ in ids(adapters)]
    guards = re.findall(r"chain (kt\w+)", stack.host.run("nft", "list", "ruleset"))
    links = re.findall(r"^\d+: (\w+)", stack.host.run("ip", "-o", "link"), re.MULTILINE)
    files = [
        name for pool in children(stack.host.pools) for name in children(stack.host.pools / pool) if name[0] != "."
    ]
    hosts = stack.list(kaktus_pb2.Kaktus)
    held = {machine.meta.id for machine in machines}
    vnets = {subnet.meta.id: subnet.vnet for subnet in stack.list(subnet_pb2.Subnet)}
    pairs = {
        "machines, domains": (ids(machines), stack.host.virsh("list", "--all", "--uuid").split()),
        "running machines, running domains": (ids(running), stack.host.virsh("list", "--uuid").split()),
        "running machines, processes": (ids(running), processes(stack)),
        "machines, folders": (ids(machines), children(stack.host.instances)),
        "pools, directories": (ids(pools), children(stack.host.pools)),
        "volumes and templates, files": (images, [Path(name).stem for name in files]),
        "pools and volumes, made once": (
            ids(pools) + ids(stack.list(volume_pb2.Volume)),
            children(stack.host.state / "made"),
        ),
        "adapters, addresses taken": (
            [f"{adapter.subnet} {adapter.address}" for adapter in adapters],
            addresses(stack.database),
        ),
        "adapters of running machines, taps": (plugged, [link for link in links if link.startswith("kt")]),
        "adapters of running machines, guarded taps": (plugged, [guard for guard in guards if guard in links]),
        "adapters, guards kept for them": ([guard for guard in guards if guard in taps], guards),
        "vnets, bridges": (
            [names.bridge(id_) for id_ in ids(stack.list(vnet_pb2.Vnet))],
            [link for link in links if link.startswith("kb")],
        ),
        "vnets of machines, metadata ports": (
            sorted({names.metadata_port(vnets[adapter.subnet]) for adapter in adapters if adapter.instance in held}),
            [link for link in links if names.is_metadata_port(link)],
        ),
        "nothing, strangers": ([], [stranger for host in hosts for stranger in host.status.strangers]),
    }
    return [f"{what}: {found}" for what, (one, other) in pairs.items() if (found := _difference(one, other))]


def ids(resources: Iterable[object]) -> list[str]:
    return [resource.meta.id for resource in resources]  # type: ignore[attr-defined]


def children(folder: Path) -> list[str]:
    """The names in a folder; none in one that is no more."""
    with contextlib.suppress(FileNotFoundError):
        return [path.name for path in folder.iterdir()]
    return []


def processes(stack: Stack) -> list[str]:
    """The machine of each QEMU in this host, twins and orphans included."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_text(errors="replace") if process.name.isdigit() else ""
        except OSError:
            continue
        if command.partition("\0")[0].endswith("qemu-system-x86_64") and str(stack.folder) in command:
            found += re.findall(r"-uuid\0([^\0]+)", command)
    return found


def addresses(database: Path) -> list[str]:
    """What the database keeps from others."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT subnet_id, address FROM adapter").fetchall()
    connection.close()
    return [f"{subnet} {address}" for subnet, address in rows]


def _difference(one: list[str], other: list[str]) -> str:
    """Each as often as on the other side."""
    here, there = Counter(one), Counter(other)
    only = {"+": there - here, "-": here - there}
    return " ".join(f"{sign}{item}" for sign, items in only.items() for item in sorted(items.elements()))
