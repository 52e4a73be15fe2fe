"""Whom each kind reaches: paths over references that end at agents, and all that follows from them.

A path is read from the resource on, one reference after another:

- `kaktus.agent`: the host that its `kaktus` names, then the `agent` of that host;
- `Kaktus(zone).agent`: every Kaktus whose `zone` names it, then the `agent` of each;
- `Kiwi(members.zone).members.agent`: references in nested parts have dots, and a list names each of its members.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import NamedTuple, Protocol

from kowa.contract import Reference

AGENT = "Agent"
# Whether a resource leads to each of so many agents is asked one by one; of more, all that it leads to are looked up.
FEW_AGENTS = 3
# `Kaktus(zone)` or `kaktus`, then a dot or the end.
_SEGMENT = re.compile(r"(?:(\w+)\(([\w.]+)\)|(\w+))(?:\.(?=\w)|$)")

Ids = AbstractSet[str]
Member = tuple[str, str]
"""A resource in a slice: its kind and id."""
Recipients = Mapping[Member, Ids]
"""The agents to be told of each resource."""
References = Mapping[str, Iterable[Reference]]
"""The references of each kind."""


class Link(NamedTuple):
    """One resource, the source, names another in a field. The kind is the source's."""

    kind: str
    field: str
    source: str
    target: str


class Paths(NamedTuple):
    """Whom the resources of a kind reach.

    Agents that one `reaches` make it on their hosts, and its deletion waits for them. Those it `informs` are only told.
    """

    reaches: tuple[str, ...] = ()
    informs: tuple[str, ...] = ()


class Reader(Protocol):
    """The references between resources: the view's, or a transaction's."""

    def targets(self, kind: str, field: str, sources: Ids) -> Ids:
        """What a field of these resources of a kind names."""

    def sources(self, kind: str, field: str, targets: Ids) -> Ids:
        """The resources of a kind whose field names any of these."""


class Reach:
    """The paths of all kinds, compiled."""

    def __init__(self, references: References, paths: Mapping[str, Paths]) -> None:
        """Raises ValueError for what is no path over these references, and for kinds that must each come first."""
        self._root = _Node(AGENT, _Step("", ""))
        self._starts: dict[str, list[_Node]] = {kind: [] for kind in paths}
        self._by_field: dict[tuple[str, str], list[_Node]] = defaultdict(list)
        for kind, (reaches, informs) in paths.items():
            for path in dict.fromkeys((*reaches, *informs)):
                node = self._root
                for at, step in reversed(_steps(references, kind, path)):
                    if step not in node.children:
                        node.children[step] = _Node(at, step, node.route)
                        self._by_field[step.kind, step.field].append(node.children[step])
                    node = node.children[step]
                node.starts, node.reaches = True, path in reaches
                self._starts[kind].append(node)
        self.order = {kind: rank for rank, kind in enumerate(_ordered(references, paths))}
        """The kinds that agents are told of, with their ranks: those of lower ranks must be known first."""

    def agents(self, reader: Reader, kind: str, id_: str) -> set[str]:
        """The agents that a resource concerns."""
        return set().union(*(_walk(reader, node.route, {id_}) for node in self._starts.get(kind, ())))

    def holders(self, reader: Reader, kind: str, id_: str) -> set[str]:
        """Of the agents that a resource concerns, those that make it on their hosts."""
        return set().union(*(_walk(reader, node.route, {id_}) for node in self._starts.get(kind, ()) if node.reaches))

    def slice(self, reader: Reader, agent: str) -> set[Member]:
        """All that concerns an agent."""
        found: set[Member] = set()
        waiting: list[tuple[_Node, Ids]] = [(self._root, {agent})]
        while waiting:
            node, ids = waiting.pop()
            if node.starts:
                found.update((node.kind, id_) for id_ in ids)
            waiting += [(child, below) for child in node.children.values() if (below := child.down.take(reader, ids))]
        return found

    def concerns(self, reader: Reader, agent: str, kind: str, id_: str) -> bool:
        """Whether a resource concerns an agent: as `agents` says, without a walk to all hosts of a region."""
        return not self._unconcerned(_State(reader), {agent}, kind, id_)

    def affected(
        self,
        reader: Reader,
        among: Collection[str],
        moved: Iterable[Member],
        added: Collection[Link],
        dropped: Collection[Link],
    ) -> tuple[Recipients, Recipients]:
        """What a commit changes in the slices of some agents: what has joined them or moved in them, and what has left.

        The reader has the state after the commit. `moved` are the resources whose generation it moved and that were
        there before, `added` and `dropped` the links that it made and broke.
        """
        there: dict[Member, set[str]] = defaultdict(set)
        left: dict[Member, set[str]] = defaultdict(set)
        for kind, id_ in moved:
            there[kind, id_] = {agent for agent in self.agents(reader, kind, id_) if agent in among}
        if not added and not dropped:
            return there, left
        now, earlier = _State(reader), _State(_Earlier(reader, added, dropped))
        changed = {(link.kind, link.field) for link in (*added, *dropped)}

        def follow(links: Iterable[Link], state: _State, other: _State, found: dict[Member, set[str]]) -> None:
            """Finds what is to be told because of links that one state has and the other has not.

            Each is followed for the agents that its far end leads to in both states. For others a link nearer to them
            has changed, too, and what hangs behind that one includes all that hangs behind this one.
            """
            for link in links:
                for node in self._by_field.get((link.kind, link.field), ()):
                    near, far = (link.source, link.target) if node.up.forward else (link.target, link.source)
                    agents = {agent for agent in _walk(state.reader, node.route[1:], {far}) if agent in among}
                    if agents and any(after.up[:2] in changed for after in node.route[1:]):
                        agents &= _walk(other.reader, node.route[1:], {far})
                    if agents:
                        _spread(node, near, agents, state, other, found)

        follow(added, now, earlier, there)
        follow(dropped, earlier, now, left)
        return there, {member: self._unconcerned(now, agents, *member) for member, agents in left.items()}

    def _unconcerned(self, state: "_State", agents: Ids, kind: str, id_: str) -> Ids:
        """Of some agents, those that a resource doesn't concern."""
        for node in self._starts.get(kind, ()):
            agents = agents - state.led_to(agents, node, id_) if agents else agents
        return agents


class _Step(NamedTuple):
    """A step over a reference: from resources to those that their field names, or (not `forward`) the other way."""

    kind: str
    field: str
    forward: bool = True

    def take(self, reader: Reader, ids: Ids) -> Ids:
        """Where it leads to."""
        read = reader.targets if self.forward else reader.sources
        return read(self.kind, self.field, ids)


@dataclass(eq=False, slots=True)
class _Node:
    """A place on paths: a kind and the way on from there. Paths that end alike share the nodes of that end."""

    kind: str
    up: _Step
    route: "tuple[_Node, ...]" = ()
    """The nodes from this one to the agent, itself included."""
    starts: bool = False
    """Whether a path of the kind starts here; if so, whether it says whom the kind reaches."""
    reaches: bool = False
    children: "dict[_Step, _Node]" = field(default_factory=dict)
    """The nodes that are one step further away from the agent, by that step."""
    down: _Step = field(init=False)
    """From the next node on the route to this one."""

    def __post_init__(self) -> None:
        self.route = (self, *self.route) if self.up.kind else ()
        self.down = self.up._replace(forward=not self.up.forward)


def _walk(reader: Reader, route: Iterable[_Node], ids: Ids) -> Ids:
    """The agents at the end of a route from some resources."""
    for node in route:
        ids = node.up.take(reader, ids)
    return ids


class _State:
    """The references at one time, and what has been found by them from each agent."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._known: dict[tuple[str, _Node], Ids] = {}

    def led_to(self, agents: Ids, node: _Node, id_: str) -> Ids:
        """To which of some agents a resource at a node leads.

        For few it is walked from the resource as far as that is by what each names, and the rest from the agents: what
        an agent is told of is less than what may name a region.
        """
        if len(agents) > FEW_AGENTS:
            return agents & _walk(self.reader, node.route, {id_})
        ids: Ids = {id_}
        for at, after in enumerate(node.route):
            if not after.up.forward:
                return {agent for agent in agents if not ids.isdisjoint(self._behind(agent, node.route[at:]))}
            ids = after.up.take(self.reader, ids)
        return agents & ids

    def _behind(self, agent: str, route: tuple[_Node, ...]) -> Ids:
        """The resources at the first node of a route that lead to an agent along it."""
        if not route:
            return {agent}
        key = agent, route[0]
        if key not in self._known:
            self._known[key] = route[0].down.take(self.reader, self._behind(agent, route[1:]))
        return self._known[key]


def _spread(node: _Node, id_: str, agents: Ids, state: _State, other: _State, found: dict[Member, set[str]]) -> None:
    """Finds what leads to agents through a resource at a node, and that one itself.

    Agents that it leads to in the other state, too, are left out: if anything changed for them, a link further away
    from them did, and that one is followed by itself.
    """
    if node.children:  # else it is not worth asking
        agents = agents - other.led_to(agents, node, id_)
    if node.starts and agents:
        found[node.kind, id_] |= agents
    for child in node.children.values() if agents else ():
        for below in child.down.take(state.reader, {id_}):
            _spread(child, below, agents, state, other, found)


class _Earlier(Reader):
    """What a reader would have read before some links were added and others dropped."""

    def __init__(self, reader: Reader, added: Iterable[Link], dropped: Iterable[Link]) -> None:
        self._reader = reader
        self._added, self._dropped = _by_ends(added), _by_ends(dropped)
        self._changed = self._added.keys() | self._dropped.keys()

    def targets(self, kind: str, field: str, sources: Ids) -> Ids:
        return self._read(self._reader.targets, kind, field, sources, "source")

    def sources(self, kind: str, field: str, targets: Ids) -> Ids:
        return self._read(self._reader.sources, kind, field, targets, "target")

    def _read(self, read: Callable[[str, str, Ids], Ids], kind: str, field: str, ids: Ids, end: str) -> Ids:
        changed = {id_ for id_ in ids if (kind, field, end, id_) in self._changed}
        if not changed:
            return read(kind, field, ids)
        found = set(read(kind, field, ids - changed))
        for id_ in changed:
            key = kind, field, end, id_
            found |= (read(kind, field, {id_}) - self._added.get(key, set())) | self._dropped.get(key, set())
        return found


def _by_ends(links: Iterable[Link]) -> dict[tuple[str, str, str, str], set[str]]:
    """What links lead to, from either end."""
    found: dict[tuple[str, str, str, str], set[str]] = {}
    for kind, name, source, target in links:
        found.setdefault((kind, name, "source", source), set()).add(target)
        found.setdefault((kind, name, "target", target), set()).add(source)
    return found


def _steps(references: References, kind: str, path: str) -> list[tuple[str, _Step]]:
    """The steps of a path, each with the kind it is taken from. Raises ValueError that says what is wrong with it."""

    def target(source: str, name: str) -> str:
        found = {item.name: item.kind for item in references.get(source, ())}
        if name not in found:
            raise ValueError(f"{wrong} {source} has no reference {name}; it has {', '.join(sorted(found)) or 'none'}")
        return found[name]

    wrong = f"{kind}: {path!r} is no path to an {AGENT}:"
    segments = list(_SEGMENT.finditer(path))
    if "".join(segment[0] for segment in segments) != path:
        raise ValueError(f"{wrong} it is written like `kaktus.agent` or `Kaktus(zone).agent`")
    steps, at, part = [], kind, ""
    for source, name, own in (segment.groups() for segment in segments):
        part += own or ""
        if own and any(item.name.startswith(f"{part}.") for item in references.get(at, ())):
            part += "."  # the name of a nested part's reference goes on
        elif own:
            steps.append((at, _Step(at, part)))
            at, part = target(at, part), ""
        else:
            if part or target(source, name) != at:
                raise ValueError(f"{wrong} {source}.{name} names no {at}{'.' if part else ''}{part[:-1]}")
            steps.append((at, _Step(source, name, forward=False)))
            at = source
    if part:
        target(at, part[:-1])
    if at != AGENT:
        raise ValueError(f"{wrong} it ends at {at}")
    return steps


def _ordered(references: References, kinds: Collection[str]) -> Iterable[str]:
    """Kinds, each after those that it names. Where two name each other, an output-only reference gives way.

    Raises ValueError when none can.
    """
    first: dict[str, list[str]] = {kind: [] for kind in sorted(kinds)}

    def follows(kind: str, other: str) -> bool:
        return kind == other or any(follows(before, other) for before in first[kind])

    found = ((item.output_only, kind, item.kind) for kind in first for item in references.get(kind, ()))
    for output_only, kind, other in sorted(found):
        if other in first and not follows(other, kind):
            first[kind].append(other)
        elif other in first and other != kind and not output_only:
            raise ValueError(f"an agent would have to know {kind} before {other}, and {other} before {kind}")
    return TopologicalSorter(first).static_order()
