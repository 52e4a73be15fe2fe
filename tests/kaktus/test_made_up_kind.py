"""A kind that nobody has heard of: its module, named in a list of kinds, is all that the agent needs to act on it."""

import asyncio
from typing import Any

from agent_kaktus.kinds import KINDS
from kowa.runtime.desired import Kinds
from tests.fleet_resources import content
from tests.made_up import made_up
from tests.made_up.agent import Balancers

from .loop_bench import APPLIED, FAILED, WAITING, Bench, two_instances
from .slices import id_of

FRONT = id_of("front")


class BenchWithBalancers(Bench):
    """A host that can spread calls, too."""

    def __init__(self) -> None:
        super().__init__(two_instances(), Kinds(*KINDS, Balancers()))
        self.balancers: dict[str, Any] = {}
        self.seen.balancers = self.host.balancers = self.balancers  # type: ignore[attr-defined]

    def ask(self, *weights: int) -> None:
        members = [{"kaktus": id_of("host"), "weight": weight} for weight in weights]
        self.feed.slice.put("front", made_up().stub("made_up.v1.Balancer")(name="front", members=members))


def test_it_is_parsed_planned_done_and_reported_beside_the_others() -> None:
    async def story() -> None:
        bench = BenchWithBalancers()
        bench.ask(1, 2)
        await bench.converge()
        assert "spread calls of front" in bench.done
        assert bench.balancers[FRONT] == ((id_of("host"), 1), (id_of("host"), 2))
        assert (bench.report("front").outcome, content(bench.report("front")).status.calls) == (APPLIED, 2)
        assert bench.report("web").outcome == APPLIED
        bench.ask(3)
        await bench.converge()
        assert bench.done == ["spread calls of front"]
        bench.feed.slice.gone("front")
        await bench.converge()
        assert bench.done == ["remove balancer front"]
        assert bench.report("front").gone

    asyncio.run(story())


def test_its_failures_are_tried_again_and_reported_and_what_is_in_no_slice_is_named() -> None:
    async def story() -> None:
        bench = BenchWithBalancers()
        bench.ask(1)
        bench.fails["spread calls of front"] = OSError("no ports left")
        await bench.converge()
        assert (bench.report("front").outcome, bench.report("front").message) == (
            WAITING,
            "tries again: spread calls of front: no ports left",
        )
        for _ in range(5):
            await bench.converge(later=60)
        assert bench.report("front").outcome == FAILED
        bench.balancers[id_of("stray")] = ()
        await bench.converge()
        assert f"balancer {id_of('stray')}" in content(bench.report("host")).status.strangers

    asyncio.run(story())
