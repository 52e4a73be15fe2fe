"""Two hundred machines created and deleted in random order, while agent, Kahuna and libvirt are killed at random."""

import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kowa.v2 import adapter_pb2, instance_pb2, subnet_pb2, volume_pb2
from tests.stack import consistency
from tests.stack.site import Site
from tests.stack.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

MACHINES = int(os.environ.get("KOWA_STORM", "200"))
SEED = os.environ.get("KOWA_SEED") or secrets.token_hex(4)
Parts = tuple[instance_pb2.Instance, volume_pb2.Volume, adapter_pb2.Adapter]
MAX_GUESTS = 8  # guests at a time
CALM = (0.3, 3.0)  # seconds between two kills, from and to
ROOM = 60.0  # seconds for one of the guests to go
REST = 90.0  # seconds for all to end, when nobody is killed any more


class Killer:
    """Kills one after another, as its seed says."""

    def __init__(self, stack: Stack, seed: str) -> None:
        self.killed = {"agent": 0, "kahuna": 0, "libvirtd": 0}
        self._stack = stack
        self._random = random.Random(f"killer {seed}")  # noqa: S311 - to be had again
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._kill, name="killer")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._enough.set()
            self._thread.join()

    def _kill(self) -> None:
        while not self._enough.wait(self._random.uniform(*CALM)):
            name = self._random.choice(sorted(self.killed))
            if name == "libvirtd":
                self._stack.host.kill_libvirtd()
                self._stack.host.start_libvirtd()
            else:
                getattr(self._stack, name).kill()
            self.killed[name] += 1


def test_a_storm_leaves_both_sides_equal(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    stack, chance = site.stack, random.Random(SEED)  # noqa: S311 - to be had again
    killer = Killer(stack, SEED)
    subnet = site.subnet(site.vnet("storm"), "10.9.0.0/24")
    alive: list[Parts] = []
    begun = time.monotonic()
    with killer.at_work():
        for number in range(MACHINES):
            while alive and (len(alive) == MAX_GUESTS or chance.random() < 0.5):
                for part in alive.pop(chance.randrange(len(alive))):
                    stack.delete(part)
            until(lambda: len(stack.list(instance_pb2.Instance)) < MAX_GUESTS, timeout=ROOM, what="a guest has gone")
            alive.append(parts(site, subnet, f"m{number}"))
    consistency.await_equal(stack, REST)
    with capsys.disabled():
        took = f"{time.monotonic() - begun:.0f} s, killed {killer.killed}"
        print(f"\n  KOWA_SEED={SEED} KOWA_STORM={MACHINES}: {took}")  # noqa: T201
    kept = sorted(machine.meta.id for machine, _, _ in alive)
    assert sorted(stack.host.virsh("list", "--uuid").split()) == kept


def parts(site: Site, subnet: subnet_pb2.Subnet, name: str) -> Parts:
    """A machine and what is its own, asked for."""
    volume, adapter = site.volume(name, site.idle), site.adapter(name, subnet)
    return site.instance(name, volume, adapter, site.idle), volume, adapter
