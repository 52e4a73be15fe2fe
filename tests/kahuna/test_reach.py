"""Paths from resources to agents: slices, agents and increments derived from them agree, after any history."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kahuna.domain.reach import Link, Member, Paths, Reach, Reader, Recipients
from kahuna.kinds.reach import paths_of_kinds
from kahuna.store.resource import CONTRACT


class Ref(NamedTuple):
    """A reference of a made-up kind."""

    name: str
    kind: str
    output_only: bool = False


def refs(**kinds: str) -> Any:
    """`Zone="region:Region"`: each kind's references, the output-only ones in parentheses."""
    return {
        kind: [Ref(*item.strip("()").partition(":")[::2], item[0] == "(") for item in text.split()]
        for kind, text in kinds.items()
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
# Hosts of one vnet get each other's instances.
NEIGHBOURS = {
    "Kaktus": Paths(informs=("agent", f"Instance(kaktus).Adapter(instance).{SAME_VNET}")),
    "Vnet": Paths(reaches=("Subnet(vnet).Adapter(subnet).instance.kaktus.agent", "region.Kiwi(region).members.agent")),
    "Instance": Paths(reaches=("kaktus.agent",), informs=(f"Adapter(instance).{SAME_VNET}",)),
    "Adapter": Paths(reaches=("instance.kaktus.agent",), informs=(SAME_VNET,)),
}
# Disks in pools that several hosts share.
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
CURRENT_REFERENCES: Any = {kind: kind_.message.references for kind, kind_ in CONTRACT.kinds.items()}
PATHS = {
    "current": (CURRENT_REFERENCES, paths_of_kinds()),
    "neighbours": (SITE, NEIGHBOURS),
    "shared pools": (SITE, SHARED_POOLS),
    "members": (SITE, MEMBERS),
}


class Graph(Reader):
    """References as a set of links; `lookups` counts the ids that were followed or found."""

    def __init__(self, links: Iterable[Link] = ()) -> None:
        self.links: set[Link] = set()
        self.lookups = 0
        self._targets: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._sources: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self.change(links, ())

    def change(self, added: Iterable[Link], dropped: Iterable[Link]) -> None:
        for link in dropped:
            self.links.remove(link)
            self._targets[link.kind, link.field, link.source].remove(link.target)
            self._sources[link.kind, link.field, link.target].remove(link.source)
        for link in added:
            self.links.add(link)
            self._targets[link.kind, link.field, link.source].add(link.target)
            self._sources[link.kind, link.field, link.target].add(link.source)

    def targets(self, kind: str, field: str, sources: AbstractSet[str]) -> set[str]:
        return self._found(self._targets, kind, field, sources)

    def sources(self, kind: str, field: str, targets: AbstractSet[str]) -> set[str]:
        return self._found(self._sources, kind, field, targets)

    def _found(
        self, links: Mapping[tuple[str, str, str], set[str]], kind: str, field: str, ids: Collection[str]
    ) -> set[str]:
        found = set[str]().union(*(links.get((kind, field, id_), ()) for id_ in ids))
        self.lookups += len(ids) + len(found)
        return found


def links_of(*lines: str) -> list[Link]:
    """`Instance web volumes disk1 disk2`: links as text."""
    return [
        Link(kind, field, source, target)
        for kind, source, field, *targets in (line.split() for line in lines)
        for target in targets
    ]


# After any history, increments and slices from scratch agree.

FOR_ALL_PATHS = pytest.mark.parametrize("case", PATHS)
IDS = range(3)
TOGGLES = st.tuples(st.integers(0, 1 << 16), st.sampled_from(IDS), st.sampled_from(IDS))
HISTORY = st.tuples(st.lists(TOGGLES, min_size=10, max_size=60), st.lists(st.lists(TOGGLES, max_size=6), max_size=8))


def chosen_link(references: list[tuple[str, Any]], pick: int, source: int, target: int) -> Link:
    """The link that the numbers choose, among all possible links between a few resources of each kind."""
    kind, reference = references[pick % len(references)]
    return Link(kind, reference.name, f"{kind}-{source}", f"{reference.kind}-{target}")


@pytest.mark.slow
@FOR_ALL_PATHS
@settings(max_examples=150, deadline=None)
@given(history=HISTORY)
def test_increments_add_up_to_slices_computed_from_scratch(
    case: str, history: tuple[list[tuple[int, int, int]], list[list[tuple[int, int, int]]]]
) -> None:
    references, paths = PATHS[case]
    reach = Reach(references, paths)
    all_references = [(kind, reference) for kind, found in references.items() for reference in found]
    initial, commits = history
    graph = Graph({chosen_link(all_references, *toggle) for toggle in initial})
    agents = {f"Agent-{number}" for number in IDS}
    slices = {agent: reach.slice(graph, agent) for agent in agents}
    for commit in commits:
        changed = {chosen_link(all_references, *toggle) for toggle in commit}
        added, dropped = changed - graph.links, changed & graph.links
        graph.change(added, dropped)
        moved = {(link.kind, link.source) for link in changed}
        sent, removed = by_agent(reach.affected(graph, agents, moved, added, dropped))
        before, slices = slices, {agent: reach.slice(graph, agent) for agent in agents}
        for agent, slice_ in slices.items():
            assert slice_ == (before[agent] | sent.get(agent, set())) - removed.get(agent, set())
            assert moved & slice_ <= sent.get(agent, set()) <= slice_
            assert removed.get(agent, set()) <= before[agent] - slice_
        check_agreement(reach, graph, slices)


def by_agent(affected: Iterable[Recipients]) -> list[dict[str, set[Member]]]:
    """Recipients by agent instead of by resource: the objects sent to each agent, and those removed from it."""
    found: list[dict[str, set[Member]]] = []
    for recipients in affected:
        found.append(defaultdict(set))
        for member, agents in recipients.items():
            for agent in agents:
                found[-1][agent].add(member)
    return found


def check_agreement(reach: Reach, graph: Graph, slices: Mapping[str, set[Member]]) -> None:
    """Checks that `agents`, `slice` and `concerns` give the same pairs of agents and resources."""
    for kind in reach.order:
        for id_ in (f"{kind}-{number}" for number in IDS):
            agents = reach.agents(graph, kind, id_)
            assert agents == {agent for agent, members in slices.items() if (kind, id_) in members}
            assert agents == {agent for agent in slices if reach.concerns(graph, agent, kind, id_)}
            assert reach.holders(graph, kind, id_) <= agents


# Examples.

AGENTS = ("ann", "bob", "cyd", "kim", "kit")


def slice_text(reach: Reach, graph: Graph, agent: str) -> list[str]:
    """An agent's slice as text."""
    return sorted(f"{kind} {id_}" for kind, id_ in reach.slice(graph, agent))


def test_hosts_of_one_vnet_get_each_others_instances() -> None:
    reach = Reach(SITE, NEIGHBOURS)
    graph = Graph(
        links_of(
            "Kaktus h1 agent ann", "Kaktus h2 agent bob", "Kaktus h3 agent cyd",
            "Kiwi k region eu", "Kiwi k members.agent kim kit", "Vnet lan region eu", "Vnet dmz region eu",
            "Subnet s1 vnet lan", "Subnet s2 vnet lan", "Subnet s3 vnet dmz",
            "Instance web kaktus h1", "Adapter web-0 subnet s1", "Adapter web-0 instance web",
            "Instance db kaktus h2", "Adapter db-0 subnet s2", "Adapter db-0 instance db",
            "Instance mail kaktus h3", "Adapter mail-0 subnet s3", "Adapter mail-0 instance mail",
        )
    )  # fmt: skip
    lan = ["Adapter db-0", "Adapter web-0", "Instance db", "Instance web", "Kaktus h1", "Kaktus h2", "Vnet lan"]
    dmz = ["Adapter mail-0", "Instance mail", "Kaktus h3", "Vnet dmz"]
    assert slice_text(reach, graph, "ann") == slice_text(reach, graph, "bob") == lan
    assert slice_text(reach, graph, "cyd") == dmz
    assert slice_text(reach, graph, "kim") == slice_text(reach, graph, "kit") == ["Vnet dmz", "Vnet lan"]
    assert reach.agents(graph, "Adapter", "db-0") == {"ann", "bob"}
    assert reach.holders(graph, "Adapter", "db-0") == {"bob"}
    assert reach.holders(graph, "Vnet", "lan") == {"ann", "bob", "kim", "kit"}

    added, dropped = links_of("Instance db kaktus h3"), links_of("Instance db kaktus h2")
    graph.change(added, dropped)
    sent, removed = by_agent(reach.affected(graph, AGENTS, [("Instance", "db")], added, dropped))
    assert sent["ann"] == {("Instance", "db"), ("Kaktus", "h3")}
    assert removed["ann"] == {("Kaktus", "h2")}
    assert slice_text(reach, graph, "bob") == ["Kaktus h2"]
    assert slice_text(reach, graph, "cyd") == sorted({*lan, *dmz} - {"Kaktus h2"})
    assert "kim" not in sent.keys() | removed.keys()


def test_a_disk_in_a_shared_pool_reaches_the_pools_host_and_its_instances_host() -> None:
    reach = Reach(SITE, SHARED_POOLS)
    graph = Graph(
        links_of(
            "Kaktus h1 agent ann", "Kaktus h2 agent bob", "Kaktus h3 agent cyd", "StoragePool ceph kaktus h1",
            "Volume disk storage_pool ceph", "Volume spare storage_pool ceph",
            "Instance web kaktus h2", "Instance web volumes disk",
        )
    )  # fmt: skip
    assert reach.holders(graph, "Volume", "disk") == {"ann", "bob"}
    assert reach.holders(graph, "Volume", "spare") == {"ann"}
    assert reach.agents(graph, "StoragePool", "ceph") == {"ann", "bob"}
    assert reach.holders(graph, "StoragePool", "ceph") == {"ann"}

    added, dropped = (
        links_of("Instance web kaktus h3", "StoragePool ceph kaktus h2"),
        links_of("Instance web kaktus h2", "StoragePool ceph kaktus h1"),
    )
    graph.change(added, dropped)
    moved = [("Instance", "web"), ("StoragePool", "ceph")]
    sent, removed = by_agent(reach.affected(graph, AGENTS, moved, added, dropped))
    assert sent["cyd"] == {("Instance", "web"), ("Volume", "disk"), ("StoragePool", "ceph")}
    assert sent["bob"] == {("StoragePool", "ceph"), ("Volume", "disk"), ("Volume", "spare")}
    assert removed["bob"] == {("Instance", "web")}
    assert removed["ann"] == {("StoragePool", "ceph"), ("Volume", "disk"), ("Volume", "spare")}
    assert slice_text(reach, graph, "ann") == []


def test_a_vnet_reaches_each_member_of_its_kiwis() -> None:
    reach = Reach(SITE, MEMBERS)
    graph = Graph(
        links_of(
            "Zone a region eu", "Zone b region eu", "Vnet lan region eu", "Kiwi k members.agent kim kit",
            "Kiwi k members.zone a b", "Kiwi k region eu", "Kaktus h1 zone a", "Kaktus h1 agent ann",
        )
    )  # fmt: skip
    assert reach.agents(graph, "Vnet", "lan") == {"kim", "kit"}
    assert reach.agents(graph, "Zone", "a") == {"ann", "kim", "kit"}

    added, dropped = links_of("Kiwi k members.agent cyd"), links_of("Kiwi k members.agent kit")
    graph.change(added, dropped)
    sent, removed = by_agent(reach.affected(graph, AGENTS, [("Kiwi", "k")], added, dropped))
    whole = {("Region", "eu"), ("Zone", "a"), ("Zone", "b"), ("Vnet", "lan"), ("Kiwi", "k")}
    assert (sent["cyd"], removed["kit"]) == (whole, whole)
    assert sent["kim"] == {("Kiwi", "k")}


# The cost of a change.

HOSTS = 1000


def large_graph() -> Graph:
    """A region of many hosts with one instance each; every ten share a vnet."""
    lines = ["Zone z region eu"]
    for number in range(HOSTS):
        lines += [
            f"Kaktus h{number} zone z", f"Kaktus h{number} agent a{number}", f"Instance i{number} kaktus h{number}",
            f"Adapter n{number} instance i{number}", f"Adapter n{number} subnet s{number // 10}",
            f"StoragePool p{number} kaktus h{number}", f"Volume v{number} storage_pool p{number}",
            f"Instance i{number} project one",
        ]  # fmt: skip
    lines += [f"Subnet s{number} vnet n{number}" for number in range(HOSTS // 10)]
    lines += [f"Vnet n{number} region eu" for number in range(HOSTS // 10)]
    return Graph(links_of(*lines))


@FOR_ALL_PATHS
def test_a_change_at_one_of_many_hosts_needs_few_lookups(case: str) -> None:
    reach, graph = Reach(*PATHS[case]), large_graph()
    agents = {f"a{number}" for number in range(HOSTS)}

    def count_lookups(added: list[Link], dropped: list[Link], moved: Collection[Member] = ()) -> int:
        graph.change(added, dropped)
        graph.lookups = 0
        reach.affected(graph, agents, moved, added, dropped)
        return graph.lookups

    assert count_lookups([], [], [("Instance", "i5")]) < 100
    created = links_of("Instance new kaktus h5", "Adapter more instance new", "Adapter more subnet s9")
    assert count_lookups(created, []) < 1500
    assert count_lookups([], created) < 1500
    assert (
        count_lookups(links_of("Instance i5 kaktus h6"), links_of("Instance i5 kaktus h5"), [("Instance", "i5")]) < 1500
    )
    assert count_lookups(links_of("StoragePool p5 kaktus h6"), links_of("StoragePool p5 kaktus h5")) < 100
    for member in reach.slice(graph, "a7") | {("Instance", "i9"), ("Vnet", "n9"), ("Volume", "v9")}:
        graph.lookups = 0
        reach.concerns(graph, "a7", *member)
        assert graph.lookups < 100, member


# Invalid paths are refused when they are compiled.


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("kaktus.agents", "Kaktus has no reference agents; it has agent, zone"),
        ("kaktus", "it ends at Kaktus"),
        ("kaktus.zone", "it ends at Zone"),
        ("name.agent", "Instance has no reference name; it has adapters, kaktus, volumes, zone"),
        ("zone.Kaktus(agent).agent", "Kaktus.agent names no Zone"),
        ("zone.Kaktus(host).agent", "Kaktus has no reference host; it has agent, zone"),
        ("zone.Cactus(zone).agent", "Cactus has no reference zone; it has none"),
        (
            "zone.Kiwi(members.zone).members",
            "Kiwi has no reference members; it has members.agent, members.zone, region",
        ),
        ("zone.Kiwi(members.zone).members.zone", "it ends at Zone"),
        ("zone.Kiwi(members.zone).members.name", "Kiwi has no reference members; it has members.agent"),
        ("zone.Kiwi(members.zone).members.Kaktus(zone).agent", "Kiwi has no reference members; it has members.agent"),
        ("kaktus..agent", "it is written like `kaktus.agent` or `Kaktus(zone).agent`"),
        ("kaktus.agent.", "it is written like `kaktus.agent` or `Kaktus(zone).agent`"),
        ("zone.Kaktus(zone.agent", "it is written like `kaktus.agent` or `Kaktus(zone).agent`"),
        ("", "it ends at Instance"),
    ],
)
def test_an_invalid_path_is_refused(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Instance: {path!r} is no path to an Agent: {reason}")):
        Reach(SITE, {"Instance": Paths(reaches=(path,))})


# The order in which an agent gets kinds.


def test_referenced_kinds_come_first() -> None:
    order = Reach(CURRENT_REFERENCES, paths_of_kinds()).order
    assert order["Region"] < order["Vnet"] < order["Subnet"] < order["Adapter"] < order["Instance"]
    named_first = (
        (reference, order[kind])
        for kind in order
        for reference in CURRENT_REFERENCES[kind]
        if not reference.output_only
    )
    assert all(order.get(reference.kind, -1) < rank for reference, rank in named_first)


def test_kinds_that_reference_each_other_are_refused_unless_one_reference_is_output_only() -> None:
    paths = {"Hen": Paths(informs=("agent",)), "Egg": Paths(informs=("hen.agent",))}
    with pytest.raises(ValueError, match=r"know Egg before Hen before Egg$"):
        Reach(refs(Hen="agent:Agent egg:Egg", Egg="hen:Hen"), paths)
    assert list(Reach(refs(Hen="agent:Agent (egg:Egg)", Egg="hen:Hen"), paths).order) == ["Hen", "Egg"]
    assert list(Reach(refs(Hen="agent:Agent egg:Egg", Egg="(hen:Hen)"), paths).order) == ["Egg", "Hen"]
