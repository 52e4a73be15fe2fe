"""Compares the API's resources with the host and the database: the sets of both sides must be equal."""

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

EQUAL_TIMEOUT_S = 90.0
ON = (instance_pb2.POWER_RUNNING, instance_pb2.POWER_SUSPENDED)


def await_equal(stack: Stack, timeout: float = EQUAL_TIMEOUT_S) -> None:
    """Waits until no operation is open and both sides are equal. Raises TimeoutError with the differences.

    Fails at once when a program has ended by itself.
    """
    found: list[str] = []

    def are_equal() -> bool:
        assert not stack.faults
        found[:] = open_operations(stack) or differences(stack)
        return not found

    try:
        until(are_equal, timeout=timeout)
    except TimeoutError:
        raise TimeoutError(f"after {timeout:g} s: " + "; ".join(found)) from None


def open_operations(stack: Stack) -> list[str]:
    """The operations that have not ended."""
    found = []
    for phase in ("PHASE_RUNNING", "PHASE_WAITING"):
        found += stack.list(operation_pb2.Operation, f"phase = {phase}")
    return [f"{found.method} of {found.target_name} is open: {found.message}" for found in found]


def differences(stack: Stack) -> list[str]:
    """The items on one side only, by the pair of sets that differs."""
    instances = stack.list(instance_pb2.Instance)
    adapters = stack.list(adapter_pb2.Adapter)
    pools = stack.list(storage_pool_pb2.StoragePool)
    images = ids(stack.list(volume_pb2.Volume)) + ids(stack.list(template_pb2.Template))
    running = [instance for instance in instances if instance.status.power in ON]
    plugged_taps = [names.tap(id_) for instance in running for id_ in instance.adapters]
    taps = [names.tap(id_) for id_ in ids(adapters)]
    filtered_taps = re.findall(r"chain (kt\w+)", stack.host.run("nft", "list", "ruleset"))
    links = re.findall(r"^\d+: (\w+)", stack.host.run("ip", "-o", "link"), re.MULTILINE)
    files = [
        name for pool in children(stack.host.pools) for name in children(stack.host.pools / pool) if name[0] != "."
    ]
    hosts = stack.list(kaktus_pb2.Kaktus)
    instance_ids = set(ids(instances))
    vnets = {subnet.meta.id: subnet.vnet for subnet in stack.list(subnet_pb2.Subnet)}
    pairs = {
        "instances, domains": (ids(instances), stack.host.virsh("list", "--all", "--uuid").split()),
        "running instances, running domains": (ids(running), stack.host.virsh("list", "--uuid").split()),
        "running instances, processes": (ids(running), processes(stack)),
        "instances, folders": (ids(instances), children(stack.host.instances)),
        "pools, directories": (ids(pools), children(stack.host.pools)),
        "volumes and templates, files": (images, [Path(name).stem for name in files]),
        "pools and volumes, records of creation": (
            ids(pools) + ids(stack.list(volume_pb2.Volume)),
            children(stack.host.state / "made"),
        ),
        "adapters, addresses taken": (
            [f"{adapter.subnet} {adapter.address}" for adapter in adapters],
            addresses(stack.database),
        ),
        "adapters of running instances, taps": (plugged_taps, [link for link in links if link.startswith("kt")]),
        "adapters of running instances, filtered taps": (plugged_taps, [tap for tap in filtered_taps if tap in links]),
        "adapters, their filters": ([tap for tap in filtered_taps if tap in taps], filtered_taps),
        "vnets, bridges": (
            [names.bridge(id_) for id_ in ids(stack.list(vnet_pb2.Vnet))],
            [link for link in links if link.startswith("kb")],
        ),
        "vnets of instances, metadata ports": (
            sorted(
                {names.metadata_port(vnets[adapter.subnet]) for adapter in adapters if adapter.instance in instance_ids}
            ),
            [link for link in links if names.is_metadata_port(link)],
        ),
        "nothing, strangers": ([], [stranger for host in hosts for stranger in host.status.strangers]),
    }
    return [
        f"{pair}: {found}" for pair, (expected, present) in pairs.items() if (found := _difference(expected, present))
    ]


def ids(resources: Iterable[object]) -> list[str]:
    return [resource.meta.id for resource in resources]  # type: ignore[attr-defined]


def children(folder: Path) -> list[str]:
    """The names in a folder; none if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return [path.name for path in folder.iterdir()]
    return []


def processes(stack: Stack) -> list[str]:
    """The instance id of each QEMU of this host, including duplicates and orphans."""
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
    """The addresses that the database has as taken, with their subnets."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT subnet_id, address FROM adapter").fetchall()
    connection.close()
    return [f"{subnet} {address}" for subnet, address in rows]


def _difference(expected: list[str], present: list[str]) -> str:
    """The surplus (+) and missing (-) items; each must be present as often as expected."""
    wanted, found = Counter(expected), Counter(present)
    only = {"+": found - wanted, "-": wanted - found}
    return " ".join(f"{sign}{item}" for sign, items in only.items() for item in sorted(items.elements()))
