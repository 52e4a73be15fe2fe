"""Where a machine goes: filter the hosts, weigh what is left, say why of the others."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kahuna.domain.errors import Refusal
from kowa import sizes
from kowa.v2 import agent_pb2

# How many reasons a refusal's message gives.
MAX_REASONS = 8


@dataclass(frozen=True, slots=True)
class Demand:
    """What a machine needs. Memory in bytes; `pools` are the storage pools its disks lie in."""

    vcpus: int
    memory: int
    pools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Host:
    """A host as placement sees it. CPUs in threads and memory in bytes, both after overcommit; `pools` it reaches."""

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


def choose(demand: Demand, hosts: Iterable[Host], within: str, lock: Callable[[Host], Host]) -> Host:
    """The best host for a demand, of all of a zone or a region, as `within` says, that still fits once it is locked.

    Raises Refusal NO_HOST with one reason for each host when none fits. Being offline never refuses a host.
    """
    refused: dict[str, str] = {}
    for host in sorted(hosts, key=weight):
        reason = why_not(demand, host) or why_not(demand, lock(host))
        if not reason:
            return host
        refused[host.name] = reason
    raise no_host(refused, within)


def no_host(refused: Mapping[str, str], within: str) -> Refusal:
    """The refusal by all hosts of a zone or region, by name with the reason. The message counts those of one reason."""
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
        f"no host of the {within} can hold the machine ({'; '.join(reasons) or f'the {within} has no host'}); "
        "ask for less or add a host",
        details=dict(sorted(refused.items())),
    )


def why_not(demand: Demand, host: Host) -> str:
    """Why a host can't hold a demand, or nothing."""
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
        free, whole, asked = sizes.in_words(max(host.memory - host.used_memory, 0), host.memory, demand.memory)
        return f"has {free} of {whole} of memory free, {asked} asked"
    return ""


def weight(host: Host) -> tuple[int, float, str]:
    """Sorts hosts: who can start it soonest, then who has the greatest share of memory free, then by name."""
    free = (host.memory - host.used_memory) / host.memory if host.memory else 0.0
    return host.stream or agent_pb2.STREAM_OFFLINE, -free, host.name
