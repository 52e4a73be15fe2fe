"""Paths from resources to agents, over references alone: what follows from them agrees, over any history."""

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
    "today": (OURS, paths_of_kinds()),
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

    def change(self, added: Iterable[Link], dropped: Iterable[Link]) -> None:
        for link in dropped:
            self.links.remove(link)
            self._named[link.kind, link.field, link.source].remove(link.target)
            self._naming[link.kind, link.field, link.target].remove(link.source)
        for link in added:
            self.links.add(link)
            self._named[link.kind, link.field, link.source].add(link.target)
            self._naming[link.kind, link.field, link.target].add(link.source)

    def targets(self, kind: str, field: str, sources: AbstractSet[str]) -> set[str]:
        return self._found(self._named, kind, field, sources)

    def sources(self, kind: str, field: str, targets: AbstractSet[str]) -> set[str]:
        return self._found(self._naming, kind, field, targets)

    def _found(
        self, links: Mapping[tuple[str, str, str], set[str]], kind: str, field: str, ids: Collection[str]
    ) -> set[str]:
        found = set[str]().union(*(links.get((kind, field, id_), ()) for id_ in ids))
        self.looked_at += len(ids) + len(found)
        return found


def named(*lines: str) -> list[Link]:
    """`Instance web volumes disk1 disk2`: links as text."""
    return [
        Link(kind, field, source, target)
        for kind, source, field, *targets in (line.split() for line in lines)
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


@pytest.mark.slow
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
        added, dropped = changed - graph.links, changed & graph.links
        graph.change(added, dropped)
        moved = {(link.kind, link.source) for link in changed}
        there, left = by_agent(reach.affected(graph, agents, moved, added, dropped))
        before, slices = slices, {agent: reach.slice(graph, agent) for agent in agents}
        for agent, now in slices.items():
            assert now == (before[agent] | there.get(agent, set())) - left.get(agent, set())
            assert moved & now <= there.get(agent, set()) <= now
            assert left.get(agent, set()) <= before[agent] - now
        agree(reach, graph, slices)


def by_agent(affected: Iterable[Recipients]) -> list[dict[str, set[Member]]]:
    """The same the other way round: what each agent is told of."""
    found: list[dict[str, set[Member]]] = []
    for recipients in affected:
        found.append(defaultdict(set))
        for member, agents in recipients.items():
            for agent in agents:
                found[-1][agent].add(member)
    return found


def agree(reach: Reach, graph: Graph, slices: Mapping[str, set[Member]]) -> None:
    """Whom resources reach, what slices hold and whether one concerns the other are three views of one thing."""
    for kind in reach.order:
        for id_ in (f"{kind}-{number}" for number in IDS):
            agents = reach.agents(graph, kind, id_)
            assert agents == {agent for agent, members in slices.items() if (kind, id_) in members}
            assert agents == {agent for agent in slices if reach.concerns(graph, agent, kind, id_)}
            assert reach.holders(graph, kind, id_) <= agents


# What is to come, in words.

AGENTS = ("ann", "bob", "cyd", "kim", "kit")


def told(reach: Reach, graph: Graph, agent: str) -> list[str]:
    """An agent's slice as text."""
    return sorted(f"{kind} {id_}" for kind, id_ in reach.slice(graph, agent))


def test_hosts_of_one_vnet_hear_of_each_other() -> None:
    reach = Reach(SITE, NEIGHBOURS)
    graph = Graph(
        named(
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
    assert told(reach, graph, "ann") == told(reach, graph, "bob") == lan
    assert told(reach, graph, "cyd") == dmz
    assert told(reach, graph, "kim") == told(reach, graph, "kit") == ["Vnet dmz", "Vnet lan"]
    assert reach.agents(graph, "Adapter", "db-0") == {"ann", "bob"}
    assert reach.holders(graph, "Adapter", "db-0") == {"bob"}
    assert reach.holders(graph, "Vnet", "lan") == {"ann", "bob", "kim", "kit"}

    added, dropped = named("Instance db kaktus h3"), named("Instance db kaktus h2")
    graph.change(added, dropped)
    there, left = by_agent(reach.affected(graph, AGENTS, [("Instance", "db")], added, dropped))
    assert there["ann"] == {("Instance", "db"), ("Kaktus", "h3")}
    assert left["ann"] == {("Kaktus", "h2")}
    assert told(reach, graph, "bob") == ["Kaktus h2"]
    assert told(reach, graph, "cyd") == sorted({*lan, *dmz} - {"Kaktus h2"})
    assert "kim" not in there.keys() | left.keys()


def test_a_disk_on_a_shared_pool_reaches_the_host_that_manages_it_and_the_one_that_uses_it() -> None:
    reach = Reach(SITE, SHARED_POOLS)
    graph = Graph(
        named(
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
        named("Instance web kaktus h3", "StoragePool ceph kaktus h2"),
        named("Instance web kaktus h2", "StoragePool ceph kaktus h1"),
    )
    graph.change(added, dropped)
    moved = [("Instance", "web"), ("StoragePool", "ceph")]
    there, left = by_agent(reach.affected(graph, AGENTS, moved, added, dropped))
    assert there["cyd"] == {("Instance", "web"), ("Volume", "disk"), ("StoragePool", "ceph")}
    assert there["bob"] == {("StoragePool", "ceph"), ("Volume", "disk"), ("Volume", "spare")}
    assert left["bob"] == {("Instance", "web")}
    assert left["ann"] == {("StoragePool", "ceph"), ("Volume", "disk"), ("Volume", "spare")}
    assert told(reach, graph, "ann") == []


def test_a_vnet_reaches_each_member_of_its_kiwis() -> None:
    reach = Reach(SITE, MEMBERS)
    graph = Graph(
        named(
            "Zone a region eu", "Zone b region eu", "Vnet lan region eu", "Kiwi k members.agent kim kit",
            "Kiwi k members.zone a b", "Kiwi k region eu", "Kaktus h1 zone a", "Kaktus h1 agent ann",
        )
    )  # fmt: skip
    assert reach.agents(graph, "Vnet", "lan") == {"kim", "kit"}
    assert reach.agents(graph, "Zone", "a") == {"ann", "kim", "kit"}

    added, dropped = named("Kiwi k members.agent cyd"), named("Kiwi k members.agent kit")
    graph.change(added, dropped)
    there, left = by_agent(reach.affected(graph, AGENTS, [("Kiwi", "k")], added, dropped))
    whole = {("Region", "eu"), ("Zone", "a"), ("Zone", "b"), ("Vnet", "lan"), ("Kiwi", "k")}
    assert (there["cyd"], left["kit"]) == (whole, whole)
    assert there["kim"] == {("Kiwi", "k")}


# What it costs.

HOSTS = 1000


def crowd() -> Graph:
    """A region of many hosts with one machine each; every ten share a vnet."""
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
    return Graph(named(*lines))


@EVERY_TABLE
def test_what_concerns_one_host_of_many_looks_at_no_other(table: str) -> None:
    reach, graph = Reach(*TABLES[table]), crowd()
    agents = {f"a{number}" for number in range(HOSTS)}

    def looks(added: list[Link], dropped: list[Link], moved: Collection[Member] = ()) -> int:
        graph.change(added, dropped)
        graph.looked_at = 0
        reach.affected(graph, agents, moved, added, dropped)
        return graph.looked_at

    assert looks([], [], [("Instance", "i5")]) < 100
    created = named("Instance new kaktus h5", "Adapter more instance new", "Adapter more subnet s9")
    assert looks(created, []) < 1500
    assert looks([], created) < 1500
    assert looks(named("Instance i5 kaktus h6"), named("Instance i5 kaktus h5"), [("Instance", "i5")]) < 1500
    assert looks(named("StoragePool p5 kaktus h6"), named("StoragePool p5 kaktus h5")) < 100
    for member in reach.slice(graph, "a7") | {("Instance", "i9"), ("Vnet", "n9"), ("Volume", "v9")}:
        graph.looked_at = 0
        reach.concerns(graph, "a7", *member)
        assert graph.looked_at < 100, member


# What is no path is refused when it is compiled.


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
def test_what_is_no_path_is_refused(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Instance: {path!r} is no path to an Agent: {reason}")):
        Reach(SITE, {"Instance": Paths(reaches=(path,))})


# The order in which an agent learns kinds.


def test_what_is_named_comes_first() -> None:
    order = Reach(OURS, paths_of_kinds()).order
    assert order["Region"] < order["Vnet"] < order["Subnet"] < order["Adapter"] < order["Instance"]
    named_first = ((reference, order[kind]) for kind in order for reference in OURS[kind] if not reference.output_only)
    assert all(order.get(reference.kind, -1) < rank for reference, rank in named_first)


def test_kinds_that_name_each_other_are_refused_unless_one_reference_is_the_servers() -> None:
    paths = {"Hen": Paths(informs=("agent",)), "Egg": Paths(informs=("hen.agent",))}
    with pytest.raises(ValueError, match=r"know \w+ before \w+ before \w+"):
        Reach(refs(Hen="agent:Agent egg:Egg", Egg="hen:Hen"), paths)
    assert list(Reach(refs(Hen="agent:Agent (egg:Egg)", Egg="hen:Hen"), paths).order) == ["Hen", "Egg"]
    assert list(Reach(refs(Hen="agent:Agent egg:Egg", Egg="(hen:Hen)"), paths).order) == ["Egg", "Hen"]
