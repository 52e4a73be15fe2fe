"""Balancers in a host's agent: everything that a new kind needs there, in one module."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_kaktus.kind import Kind, View
from kowa.runtime.desired import DesiredObject, Identity
from kowa.runtime.verdict import AS_WANTED, GONE, Step, Verdict
from tests.made_up import made_up

Members = tuple[tuple[str, int], ...]
"""(host id, weight) of each member."""


@dataclass(frozen=True, slots=True)
class Balancer(DesiredObject):
    members: Members


def _spread_calls(wanted: Balancer) -> Step:
    async def do(host: Any) -> None:
        host.balancers[wanted.id] = wanted.members

    return Step("spread calls of", wanted.name, do)


def _remove(wanted: Balancer) -> Step:
    async def do(host: Any) -> None:
        host.balancers.pop(wanted.id, None)

    return Step("remove balancer", wanted.name, do)


class Balancers(Kind[Balancer]):
    message, value = made_up().stub("made_up.v1.Balancer"), Balancer

    def parse(self, identity: Identity, sent: Any) -> Balancer:
        return Balancer(*identity, tuple((member.kaktus, member.weight) for member in sent.members))

    async def observe(self, host: Any) -> Mapping[str, Members]:
        return dict(host.balancers)

    def plan(self, view: View, wanted: Balancer) -> Verdict:
        found = view.by_kind[Balancer].get(wanted.id)
        if wanted.gone:
            return GONE if found is None else Verdict((_remove(wanted),))
        return AS_WANTED if found == wanted.members else Verdict((_spread_calls(wanted),))

    def fill_status(self, view: View, wanted: Balancer, resource: Any) -> None:
        resource.status.calls = len(view.by_kind[Balancer].get(wanted.id, ()))

    def strangers(self, view: View) -> Iterable[str]:
        return [f"balancer {id_}" for id_ in view.by_kind[Balancer].keys() - view.desired.of(Balancer).keys()]
