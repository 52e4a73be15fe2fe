"""Reach: the agents that resources of each kind concern, declared as paths of references that end at agents.

A path starts at the resource and follows one reference after another:

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
# At most so many agents are each checked for being reached by a resource; for more, all it reaches are collected.
FEW_AGENTS = 3
_PATH = re.compile(r"((\w+\([\w.]+\)|\w+)(\.(?=\w)|$))*")
_INVERSE = re.compile(r"(\w+)\(([\w.]+)\)")

Ids = AbstractSet[str]
Member = tuple[str, str]
"""A resource in a slice: its kind and id."""
Recipients = Mapping[Member, Ids]
"""Resources, each with the agents to notify."""
References = Mapping[str, Iterable[Reference]]
"""The references of each kind."""


class Link(NamedTuple):
    """A reference: the source names the target in a field. `kind` is that of the source."""

    kind: str
    field: str
    source: str
    target: str


class Paths(NamedTuple):
    """The paths of one kind.

    Agents that a resource `reaches` realise it on their hosts, and its deletion waits for them. Those it `informs` only
    receive it.
    """

    reaches: tuple[str, ...] = ()
    informs: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads the references between resources, from the view or in a transaction."""

    def targets(self, kind: str, field: str, sources: Ids) -> Ids:
        """Returns the ids that a field of these resources of a kind names."""

    def sources(self, kind: str, field: str, targets: Ids) -> Ids:
        """Returns the resources of a kind whose field names any of these ids."""


class _Step(NamedTuple):
    """One step of a path: from resources to those their field names or, if not `forward`, back from those to them."""

    kind: str
    field: str
    forward: bool = True

    @property
    def inverse(self) -> "_Step":
        return self._replace(forward=not self.forward)


_Route = tuple[_Step, ...]
"""A path as its steps, from a resource to agents."""


class Reach:
    """The paths of all kinds, compiled."""

    def __init__(self, references: References, paths: Mapping[str, Paths]) -> None:
        """Raises ValueError for a path that does not fit these references, and for kinds that refer to each other."""
        self._reaching = {kind: [_route(references, kind, path) for path in paths[kind].reaches] for kind in paths}
        informing = {kind: [_route(references, kind, path) for path in paths[kind].informs] for kind in paths}
        self._routes = {kind: [*self._reaching[kind], *informing[kind]] for kind in paths}
        self._crossings: dict[tuple[str, str], list[tuple[str, _Route, int]]] = defaultdict(list)
        for kind, routes in self._routes.items():
            for route in routes:
                for index, step in enumerate(route):
                    self._crossings[step.kind, step.field].append((kind, route, index))
        self.order = {kind: rank for rank, kind in enumerate(_ordered(references, paths))}
        """The kinds that agents receive, with their ranks: an agent needs those of lower ranks first."""

    def agents(self, reader: Reader, kind: str, id_: str) -> set[str]:
        """Returns the agents that a resource concerns."""
        return set().union(*(_Snapshot(reader).walk(route, {id_}) for route in self._routes.get(kind, ())))

    def holders(self, reader: Reader, kind: str, id_: str) -> set[str]:
        """Returns the agents that realise a resource on their hosts."""
        return set().union(*(_Snapshot(reader).walk(route, {id_}) for route in self._reaching.get(kind, ())))

    def holder(self, reader: Reader, kind: str, id_: str) -> str:
        """Returns the agent that realises a resource of a kind with one host at most; empty if there is none."""
        return next(iter(self.holders(reader, kind, id_)), "")

    def slice(self, reader: Reader, agent: str) -> set[Member]:
        """Returns all resources that concern an agent."""
        snapshot = _Snapshot(reader)
        found = ((kind, snapshot.leading_to(route, agent)) for kind, routes in self._routes.items() for route in routes)
        return {(kind, id_) for kind, ids in found for id_ in ids}

    def concerns(self, reader: Reader, agent: str, kind: str, id_: str) -> bool:
        """Whether a resource concerns an agent, as `agents` tells it, but without a walk to all hosts of a region."""
        return bool(self._concerned(_Snapshot(reader), {agent}, kind, id_))

    def affected(
        self,
        reader: Reader,
        candidates: Collection[str],
        changed: Iterable[Member],
        added: Collection[Link],
        dropped: Collection[Link],
    ) -> tuple[Recipients, Recipients]:
        """Returns what to send to which candidates after a commit, and what to remove from their slices.

        The reader has the state after the commit. `changed` are the resources that existed before and have a new
        generation; `added` and `dropped` are the links that the commit added and dropped.
        """
        to_send: dict[Member, set[str]] = defaultdict(set)
        to_remove: dict[Member, set[str]] = defaultdict(set)
        for kind, id_ in changed:
            to_send[kind, id_] = {agent for agent in self.agents(reader, kind, id_) if agent in candidates}
        if added or dropped:
            now, earlier = _Snapshot(reader), _Snapshot(reader, added, dropped)
            self._follow(added, candidates, now, earlier, to_send)
            self._follow(dropped, candidates, earlier, now, to_remove)
            for member, agents in to_remove.items():
                agents -= self._concerned(now, agents, *member)
        return to_send, to_remove

    def _follow(
        self,
        links: Iterable[Link],
        candidates: Collection[str],
        snapshot: "_Snapshot",
        other: "_Snapshot",
        found: dict[Member, set[str]],
    ) -> None:
        """Adds to `found` the resources that reach candidates over links which `other` does not have.

        Wherever a path crosses a link, all resources that lead to its near end reach the agents beyond its far end.
        Agents that the near end also reaches in `other` are left out: if anything changed for them, it is due to a link
        further from them, and that link is followed by itself.
        """
        for link in links:
            for kind, route, index in self._crossings.get((link.kind, link.field), ()):
                near, far = (link.source, link.target) if route[index].forward else (link.target, link.source)
                agents = {agent for agent in snapshot.walk(route[index + 1 :], {far}) if agent in candidates}
                if agents and index:  # at 0 nothing leads here: checking costs more than sending again
                    agents -= other.reached_agents(agents, route[index:], near)
                if agents:
                    for id_ in snapshot.walk([step.inverse for step in reversed(route[:index])], {near}):
                        found[kind, id_] |= agents

    def _concerned(self, snapshot: "_Snapshot", agents: Ids, kind: str, id_: str) -> set[str]:
        """Returns those of some agents that a resource concerns."""
        return set().union(*(snapshot.reached_agents(agents, route, id_) for route in self._routes.get(kind, ())))


class _Snapshot:
    """The references as the reader has them, or as they were before some links were added and others dropped."""

    def __init__(self, reader: Reader, added: Iterable[Link] = (), dropped: Iterable[Link] = ()) -> None:
        self._reader = reader
        self._added, self._dropped = _neighbours(added), _neighbours(dropped)
        self._leading_to: dict[tuple[_Route, str], Ids] = {}

    def follow(self, step: _Step, ids: Ids) -> Ids:
        """Returns the resources that one step leads to from some others."""
        read = self._reader.targets if step.forward else self._reader.sources
        changed = {id_ for id_ in ids if (step, id_) in self._added or (step, id_) in self._dropped}
        if not changed:
            return read(step.kind, step.field, ids)
        found = set(read(step.kind, step.field, ids - changed))
        for id_ in changed:
            found |= read(step.kind, step.field, {id_}) - self._added[step, id_] | self._dropped[step, id_]
        return found

    def walk(self, route: Iterable[_Step], ids: Ids) -> Ids:
        """Follows several steps, one after another."""
        return reduce(lambda reached, step: self.follow(step, reached), route, ids)

    def leading_to(self, route: _Route, agent: str) -> Ids:
        """Returns the resources from which a route leads to an agent."""
        if not route:
            return {agent}
        if (route, agent) not in self._leading_to:
            self._leading_to[route, agent] = self.follow(route[0].inverse, self.leading_to(route[1:], agent))
        return self._leading_to[route, agent]

    def reached_agents(self, agents: Ids, route: _Route, id_: str) -> Ids:
        """Returns those of some agents that a route from a resource reaches.

        For few agents only the forward steps are walked from the resource, and the rest back from the agents: an agent
        receives fewer resources than may name, for example, a region.
        """
        ids: Ids = {id_}
        for index, step in enumerate(route):
            if not step.forward and len(agents) <= FEW_AGENTS:
                return {agent for agent in agents if not ids.isdisjoint(self.leading_to(route[index:], agent))}
            ids = self.follow(step, ids)
        return agents & ids


def _neighbours(links: Iterable[Link]) -> defaultdict[tuple[_Step, str], set[str]]:
    """Maps either end of each link, with the step over it, to the other ends."""
    found: defaultdict[tuple[_Step, str], set[str]] = defaultdict(set)
    for kind, field, source, target in links:
        found[_Step(kind, field), source].add(target)
        found[_Step(kind, field, forward=False), target].add(source)
    return found


def _route(references: References, kind: str, path: str) -> _Route:
    """Parses a path into steps. Raises ValueError with what is wrong with it."""
    error, current, rest = f"{kind}: {path!r} is no path to an {AGENT}:", kind, path
    if not _PATH.fullmatch(path):
        raise ValueError(f"{error} it is written like `kaktus.agent` or `Kaktus(zone).agent`")
    steps = []
    while rest:
        inverse = _INVERSE.match(rest)
        source, name = inverse.groups() if inverse else (current, "")
        targets = {reference.name: reference.kind for reference in references.get(source, ())}
        name = name or next((name for name in targets if f"{rest}.".startswith(f"{name}.")), rest.partition(".")[0])
        if name not in targets:
            raise ValueError(f"{error} {source} has no reference {name}; it has {', '.join(sorted(targets)) or 'none'}")
        if inverse and targets[name] != current:
            raise ValueError(f"{error} {source}.{name} names no {current}")
        steps.append(_Step(source, name, forward=not inverse))
        current, rest = (source if inverse else targets[name]), rest[len(inverse[0] if inverse else name) + 1 :]
    if current != AGENT:
        raise ValueError(f"{error} it ends at {current}")
    return tuple(steps)


def _ordered(references: References, kinds: Collection[str]) -> list[str]:
    """Sorts kinds, each after those that it names. Output-only references do not count, since they may form circles.

    Raises ValueError for kinds that name each other in other references.
    """
    named = {kind: {item.kind for item in references.get(kind, ()) if not item.output_only} for kind in sorted(kinds)}
    try:
        # Sorted: the order, and the kinds that the error names, are the same in every process.
        first = {kind: sorted(named[kind] & named.keys() - {kind}) for kind in named}
        return list(TopologicalSorter(first).static_order())
    except CycleError as error:
        raise ValueError(f"an agent would have to know {' before '.join(error.args[1])}") from None
