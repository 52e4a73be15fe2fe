"""Paths from resources to agents, over references alone: what follows from them agrees, over any history."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kahuna.domain.reach import PATHS, Link, Member, Paths, Reach, Reader
from kahuna.store.resource import CONTRACT


class Ref(NamedTuple):
    """A reference of a made-up kind."""

    name: str
    kind: str
    output_only: bool = False


def refs(**kinds: str) -> Any:
    """`Zone="region:Region"`: each kind's references, the output-only ones in parentheses."""
    return {
        kind: [Ref(*item.strip("()").partition(":")[::2], item[0] == "(") for item in said.split()]
        for kind, said in kinds.items()
    }


SITE = refs(
    Zone="region:Region",
    Kaktus="zone:Zone agent:Agent",
    Kiwi="region:Region members.zone:Zone members.agent:Agent",
    StoragePool="region:Region kaktus:Kaktus",
    Volume="storage_pool:StoragePool (instance:Instance)",
    Vnet="region:Region",
    Subnet="vnet:Vnet",
    Adapter="subnet:Subnet (instance:Instance)",
    Instance="zone:Zone volumes:Volume adapters:Adapter (kaktus:Kaktus)",
)
SAME_VNET = "subnet.vnet.Subnet(vnet).Adapter(subnet).instance.kaktus.agent"
# What hosts of one vnet are told of each other's machines.
NEIGHBOURS = {
    "Kaktus": Paths(informs=("agent", f"Instance(kaktus).Adapter(instance).{SAME_VNET}")),
    "Vnet": Paths(reaches=("Subnet(vnet).Adapter(subnet).instance.kaktus.agent", "region.Kiwi(region).members.agent")),
    "Instance": Paths(reaches=("kaktus.agent",), informs=(f"Adapter(instance).{SAME_VNET}",)),
    "Adapter": Paths(reaches=("instance.kaktus.agent",), informs=(SAME_VNET,)),
}
# A disk on storage that several hosts reach.
SHARED_POOLS = {
    "StoragePool": Paths(reaches=("kaktus.agent",), informs=("Volume(storage_pool).Instance(volumes).kaktus.agent",)),
    "Volume": Paths(reaches=("storage_pool.kaktus.agent", "Instance(volumes).kaktus.agent")),
    "Instance": Paths(reaches=("kaktus.agent",)),
}
# A Kiwi with several nodes, in several zones.
MEMBERS = {
    "Region": Paths(informs=("Zone(region).Kaktus(zone).agent", "Kiwi(region).members.agent")),
    "Zone": Paths(informs=("Kaktus(zone).agent", "Kiwi(members.zone).members.agent")),
    "Kiwi": Paths(informs=("members.agent",)),
    "Vnet": Paths(reaches=("region.Zone(region).Kiwi(members.zone).members.agent",)),
}
OURS: Any = {kind: kind_.references for kind, kind_ in CONTRACT.kinds.items()}
TABLES = {
    "today": (OURS, PATHS),
    "neighbours": (SITE, NEIGHBOURS),
    "shared pools": (SITE, SHARED_POOLS),
    "members": (SITE, MEMBERS),
}


class Graph(Reader):
    """References as a set of links. `looked_at` counts the ids that were found by them."""

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self.links: set[Link] = set()
        self.looked_at = 0
        self._named: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._naming: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self.change(links, ())

    def change(self, came: Iterable[Link], went: Iterable[Link]) -> None:
        for link in went:
            self.links.remove(link)
            self._named[link.kind, link.field, link.source].remove(link.target)
            self._naming[link.kind, link.field, link.target].remove(link.source)
        for link in came:
            self.links.add(link)
            self._named[link.kind, link.field, link.source].add(link.target)
            self._naming[link.kind, link.field, link.target].add(link.source)

    def targets(self, kind: str, field: str, sources: AbstractSet[str]) -> set[str]:
        return self._found(self._named, kind, field, sources)

    def sources(self, kind: str, field: str, targets: AbstractSet[str]) -> set[str]:
        return self._found(self._naming, kind, field, targets)

    def count_sources(self, kind: str, field: str, targets: AbstractSet[str]) -> int:
        return sum(len(self._naming.get((kind, field, target), ())) for target in targets)

    def _found(
        self, links: Mapping[tuple[str, str, str], set[str]], kind: str, field: str, ids: Collection[str]
    ) -> set[str]:
        found = set[str]().union(*(links.get((kind, field, id_), ()) for id_ in ids))
        self.looked_at += len(ids) + len(found)
        return found


def named(*said: str) -> list[Link]:
    """`Instance web volumes disk1 disk2`: links as text."""
    return [
        Link(kind, field, source, target)
        for kind, source, field, *targets in (line.split() for line in said)
        for target in targets
    ]


# Any history comes to what a look from scratch says.

EVERY_TABLE = pytest.mark.parametrize("table", TABLES)
IDS = range(3)
TOGGLES = st.tuples(st.integers(0, 1 << 16), st.sampled_from(IDS), st.sampled_from(IDS))
HISTORY = st.tuples(st.lists(TOGGLES, min_size=10, max_size=60), st.lists(st.lists(TOGGLES, max_size=6), max_size=8))


def toggled(references: list[tuple[str, Any]], pick: int, source: int, target: int) -> Link:
    """One of all links that are possible between a few resources of each kind."""
    kind, reference = references[pick % len(references)]
    return Link(kind, reference.name, f"{kind}-{source}", f"{reference.kind}-{target}")


@EVERY_TABLE
@settings(max_examples=150, deadline=None)
@given(history=HISTORY)
def test_increments_come_to_what_slices_are_from_scratch(
    table: str, history: tuple[list[tuple[int, int, int]], list[list[tuple[int, int, int]]]]
) -> None:
    references, paths = TABLES[table]
    reach = Reach(references, paths)
    of = [(kind, reference) for kind, found in references.items() for reference in found]
    begin, commits = history
    graph = Graph({toggled(of, *toggle) for toggle in begin})
    agents = {f"Agent-{number}" for number in IDS}
    slices = {agent: reach.slice(graph, agent) for agent in agents}
    for commit in commits:
        changed = {toggled(of, *toggle) for toggle in commit}
        came, went = changed - graph.links, changed & graph.links
        graph.change(came, went)
        moved = {(link.kind, link.source) for link in changed}
        there, left = reach.affected(graph, agents, moved, came, went)
        before, slices = slices, {agent: reach.slice(graph, agent) for agent in agents}
        for agent, now in slices.items():
            assert now == (before[agent] | there.get(agent, set())) - left.get(agent, set())
            assert moved & now <= there.get(agent, set()) <= now
            assert left.get(agent, set()) <= before[agent] - now
        agree(reach, graph, slices)


def agree(reach: Reach, graph: Graph, slices: Mapping[str, set[Member]]) -> None:
    """Whom resources reach, what slices hold and whether one concerns the other are three views of one thing."""
    for kind in reach.order:
        for id_ in (f"{kind}-{number}" for number in IDS):
            agents = reach.agents(graph, kind, id_)
            assert agents == {agent for agent, members in slices.items() if (kind, id_) in members}
            assert agents == {agent for agent in slices if reach.concerns(graph, agent, kind, id_)}
            assert reach.holders(graph, kind, id_) <= agents
