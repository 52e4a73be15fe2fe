"""Placement of instances: filters the hosts, sorts those that fit, and gives a reason for each of the others."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kahuna.domain.errors import Refusal
from kowa import sizes
from kowa.v2 import agent_pb2

# Different reasons that a refusal's message lists.
MAX_REASONS = 8


@dataclass(frozen=True, slots=True)
class Demand:
    """The needs of an instance. Memory is in bytes; `pools` are the storage pools that hold its disks."""

    vcpus: int
    memory: int
    pools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Host:
    """A host as placement sees it. CPUs are threads, memory is bytes, both after overcommit; it can use `pools`."""

    id: str
    name: str
    cpus: int
    memory: int
    used_cpus: int = 0
    used_memory: int = 0
    pools: frozenset[str] = frozenset()
    stream: agent_pb2.Stream = agent_pb2.STREAM_ONLINE
    cordoned: bool = False
    bound: bool = True


def choose(demand: Demand, hosts: Iterable[Host], area: str, lock: Callable[[Host], Host]) -> Host:
    """Returns the best host that still fits a demand once it is locked. `area`, "zone" or "region", is for the refusal.

    Raises Refusal NO_HOST with one reason for each host when none fits. A host that is offline is not refused for that.
    """
    refused: dict[str, str] = {}
    for host in sorted(hosts, key=sort_key):
        reason = misfit(demand, host) or misfit(demand, lock(host))
        if not reason:
            return host
        refused[host.name] = reason
    raise no_host(refused, area)


def no_host(refused: Mapping[str, str], area: str) -> Refusal:
    """The refusal when no host fits; `refused` maps names to reasons. The message counts the hosts of each reason."""
    hosts: dict[str, list[str]] = {}
    for name, reason in sorted(refused.items()):
        hosts.setdefault(reason, []).append(name)
    groups = sorted(hosts.items(), key=lambda group: -len(group[1]))
    shown = groups[:MAX_REASONS]
    reasons = [f"{names[0] if len(names) == 1 else f'{len(names)} hosts'}: {reason}" for reason, names in shown]
    if len(groups) > MAX_REASONS:
        reasons.append(f"and {sum(len(names) for _, names in groups[MAX_REASONS:])} more")
    return Refusal(
        "NO_HOST",
        f"no host of the {area} can hold the machine ({'; '.join(reasons) or f'the {area} has no host'}); "
        "ask for less or add a host",
        details=dict(sorted(refused.items())),
    )


def misfit(demand: Demand, host: Host) -> str:
    """The reason why a host can't hold a demand; empty if it can."""
    if host.cordoned:
        return "is cordoned"
    if not host.bound:
        return "has no agent"
    if not host.memory:
        return "has not reported its capacity yet"
    if not demand.pools <= host.pools:
        return "does not reach the storage pool of its disks"
    if demand.vcpus > host.cpus - host.used_cpus:
        return f"has {max(host.cpus - host.used_cpus, 0)} of {host.cpus} CPUs free, {demand.vcpus} asked"
    if demand.memory > host.memory - host.used_memory:
        free, whole, requested = sizes.in_words(max(host.memory - host.used_memory, 0), host.memory, demand.memory)
        return f"has {free} of {whole} of memory free, {requested} asked"
    return ""


def sort_key(host: Host) -> tuple[int, float, str]:
    """Puts connected hosts first, then the greatest share of free memory, then sorts by name."""
    free = (host.memory - host.used_memory) / host.memory if host.memory else 0.0
    return host.stream or agent_pb2.STREAM_OFFLINE, -free, host.name
