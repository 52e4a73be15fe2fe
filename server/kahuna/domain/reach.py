"""Whom each kind reaches: paths over references that end at agents, and all that follows from them.

A path is read from the resource on, one reference after another:

- `kaktus.agent`: the host that its `kaktus` names, then the `agent` of that host;
- `Kaktus(zone).agent`: every Kaktus whose `zone` names it, then the `agent` of each;
- `Kiwi(members.zone).members.agent`: references in nested parts have dots, and a list names each of its members.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, Protocol

from kowa.contract import Reference

AGENT = "Agent"
# Whether a resource leads to each of so many agents is asked one by one; of more, all that it leads to are looked up.
FEW_AGENTS = 3
_PATH = re.compile(r"((\w+\([\w.]+\)|\w+)(\.(?=\w)|$))*")
_AGAINST = re.compile(r"(\w+)\(([\w.]+)\)")

Ids = AbstractSet[str]
Member = tuple[str, str]
"""A resource in a slice: its kind and id."""
Recipients = Mapping[Member, Ids]
"""Resources, each with agents."""
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


class _Step(NamedTuple):
    """A step over a reference: from resources to those that their field names, or (not `forward`) the other way."""

    kind: str
    field: str
    forward: bool = True

    @property
    def back(self) -> "_Step":
        return self._replace(forward=not self.forward)


_Route = tuple[_Step, ...]
"""A path as its steps, from a resource to agents."""


class Reach:
    """The paths of all kinds, compiled."""

    def __init__(self, references: References, paths: Mapping[str, Paths]) -> None:
        """Raises ValueError for what is no path over these references, and for kinds that must each come first."""
        self._reaching = {kind: [_route(references, kind, path) for path in paths[kind].reaches] for kind in paths}
        informing = {kind: [_route(references, kind, path) for path in paths[kind].informs] for kind in paths}
        self._routes = {kind: [*self._reaching[kind], *informing[kind]] for kind in paths}
        self._crossings: dict[tuple[str, str], list[tuple[str, _Route, int]]] = defaultdict(list)
        for kind, routes in self._routes.items():
            for route in routes:
                for index, step in enumerate(route):
                    self._crossings[step.kind, step.field].append((kind, route, index))
        self.order = {kind: rank for rank, kind in enumerate(_ordered(references, paths))}
        """The kinds that agents are told of, with their ranks: those of lower ranks must be known first."""

    def agents(self, reader: Reader, kind: str, id_: str) -> set[str]:
        """The agents that a resource concerns."""
        return set().union(*(_State(reader).walk(route, {id_}) for route in self._routes.get(kind, ())))

    def holders(self, reader: Reader, kind: str, id_: str) -> set[str]:
        """Of the agents that a resource concerns, those that make it on their hosts."""
        return set().union(*(_State(reader).walk(route, {id_}) for route in self._reaching.get(kind, ())))

    def holder(self, reader: Reader, kind: str, id_: str) -> str:
        """The agent that makes a resource which is on one host at most, if there is one."""
        return next(iter(self.holders(reader, kind, id_)), "")

    def slice(self, reader: Reader, agent: str) -> set[Member]:
        """All that concerns an agent."""
        state = _State(reader)
        starts = ((kind, state.behind(route, agent)) for kind, routes in self._routes.items() for route in routes)
        return {(kind, id_) for kind, ids in starts for id_ in ids}

    def concerns(self, reader: Reader, agent: str, kind: str, id_: str) -> bool:
        """Whether a resource concerns an agent: as `agents` says, without a walk to all hosts of a region."""
        return bool(self._concerned(_State(reader), {agent}, kind, id_))

    def affected(
        self,
        reader: Reader,
        among: Collection[str],
        moved: Iterable[Member],
        added: Collection[Link],
        dropped: Collection[Link],
    ) -> tuple[Recipients, Recipients]:
        """What a commit changes in the slices of some agents: what to send them, and what to remove there.

        The reader has the state after the commit. `moved` are the resources whose generation it moved and that were
        there before, `added` and `dropped` the links that it made and broke.
        """
        to_send: dict[Member, set[str]] = defaultdict(set)
        to_remove: dict[Member, set[str]] = defaultdict(set)
        for kind, id_ in moved:
            to_send[kind, id_] = {agent for agent in self.agents(reader, kind, id_) if agent in among}
        if added or dropped:
            now, earlier = _State(reader), _State(reader, added, dropped)
            self._follow(added, among, now, earlier, to_send)
            self._follow(dropped, among, earlier, now, to_remove)
            for member, agents in to_remove.items():
                agents -= self._concerned(now, agents, *member)
        return to_send, to_remove

    def _follow(
        self,
        links: Iterable[Link],
        among: Collection[str],
        state: "_State",
        other: "_State",
        found: dict[Member, set[str]],
    ) -> None:
        """Finds what leads over links, which one state has and the other has not, to which agents.

        At each place where a path crosses a link, all behind its near end leads to the agents beyond its far end. Those
        that the near end leads to in the other state, too, are left out: if anything changed for them, it did by a link
        further away from them, and that one is followed by itself.
        """
        for link in links:
            for kind, route, index in self._crossings.get((link.kind, link.field), ()):
                near, far = (link.source, link.target) if route[index].forward else (link.target, link.source)
                agents = {agent for agent in state.walk(route[index + 1 :], {far}) if agent in among}
                if agents and index:  # else nothing is behind it, and asking costs more than telling them again
                    agents -= other.led_to(agents, route[index:], near)
                if agents:
                    for id_ in state.walk([step.back for step in reversed(route[:index])], {near}):
                        found[kind, id_] |= agents

    def _concerned(self, state: "_State", agents: Ids, kind: str, id_: str) -> set[str]:
        """Of some agents, those that a resource concerns."""
        return set().union(*(state.led_to(agents, route, id_) for route in self._routes.get(kind, ())))


class _State:
    """The references at one time: as they are read, or before some links were added and others dropped."""

    def __init__(self, reader: Reader, added: Iterable[Link] = (), dropped: Iterable[Link] = ()) -> None:
        self._reader = reader
        self._added, self._dropped = _by_ends(added), _by_ends(dropped)
        self._behind: dict[tuple[_Route, str], Ids] = {}

    def take(self, step: _Step, ids: Ids) -> Ids:
        """Where a step leads to from some resources."""
        read = self._reader.targets if step.forward else self._reader.sources
        changed = {id_ for id_ in ids if (step, id_) in self._added or (step, id_) in self._dropped}
        if not changed:
            return read(step.kind, step.field, ids)
        found = set(read(step.kind, step.field, ids - changed))
        for id_ in changed:
            found |= read(step.kind, step.field, {id_}) - self._added[step, id_] | self._dropped[step, id_]
        return found

    def walk(self, route: Iterable[_Step], ids: Ids) -> Ids:
        """Where several steps lead to."""
        return reduce(lambda at, step: self.take(step, at), route, ids)

    def behind(self, route: _Route, agent: str) -> Ids:
        """What leads to an agent along a route."""
        if not route:
            return {agent}
        if (route, agent) not in self._behind:
            self._behind[route, agent] = self.take(route[0].back, self.behind(route[1:], agent))
        return self._behind[route, agent]

    def led_to(self, agents: Ids, route: _Route, id_: str) -> Ids:
        """To which of some agents a resource leads along a route.

        For few it is walked from the resource as far as that is by what each names, and the rest from the agents: what
        an agent is told of is less than what may name a region.
        """
        ids: Ids = {id_}
        for index, step in enumerate(route):
            if not step.forward and len(agents) <= FEW_AGENTS:
                return {agent for agent in agents if not ids.isdisjoint(self.behind(route[index:], agent))}
            ids = self.take(step, ids)
        return agents & ids


def _by_ends(links: Iterable[Link]) -> defaultdict[tuple[_Step, str], set[str]]:
    """What links lead to, from either end."""
    found: defaultdict[tuple[_Step, str], set[str]] = defaultdict(set)
    for kind, field, source, target in links:
        found[_Step(kind, field), source].add(target)
        found[_Step(kind, field, forward=False), target].add(source)
    return found


def _route(references: References, kind: str, path: str) -> _Route:
    """The steps of a path. Raises ValueError that says what is wrong with it."""
    wrong, at, rest = f"{kind}: {path!r} is no path to an {AGENT}:", kind, path
    if not _PATH.fullmatch(path):
        raise ValueError(f"{wrong} it is written like `kaktus.agent` or `Kaktus(zone).agent`")
    steps = []
    while rest:
        against = _AGAINST.match(rest)
        source, name = against.groups() if against else (at, "")
        targets = {reference.name: reference.kind for reference in references.get(source, ())}
        name = name or next((name for name in targets if f"{rest}.".startswith(f"{name}.")), rest.partition(".")[0])
        if name not in targets:
            raise ValueError(f"{wrong} {source} has no reference {name}; it has {', '.join(sorted(targets)) or 'none'}")
        if against and targets[name] != at:
            raise ValueError(f"{wrong} {source}.{name} names no {at}")
        steps.append(_Step(source, name, forward=not against))
        at, rest = (source if against else targets[name]), rest[len(against[0] if against else name) + 1 :]
    if at != AGENT:
        raise ValueError(f"{wrong} it ends at {at}")
    return tuple(steps)


def _ordered(references: References, kinds: Collection[str]) -> list[str]:
    """Kinds, each after those that it names; what only the server fills orders nothing, since it may lead in circles.

    Raises ValueError for kinds that name each other otherwise.
    """
    named = {kind: {item.kind for item in references.get(kind, ()) if not item.output_only} for kind in sorted(kinds)}
    try:
        return list(TopologicalSorter({kind: named[kind] & named.keys() - {kind} for kind in named}).static_order())
    except CycleError as error:
        raise ValueError(f"an agent would have to know {' before '.join(error.args[1])}") from None
