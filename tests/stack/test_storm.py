"""200 instances are created and deleted in random order, while agent, Kahuna and libvirt are killed at random."""

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

INSTANCES = int(os.environ.get("KOWA_STORM", "200"))
SEED = os.environ.get("KOWA_SEED") or secrets.token_hex(4)
Parts = tuple[instance_pb2.Instance, volume_pb2.Volume, adapter_pb2.Adapter]
MAX_GUESTS = 8  # at a time
KILL_INTERVAL_S = (0.3, 3.0)  # least and most time between two kills
DELETE_TIMEOUT_S = 60.0  # for one of the guests
CONVERGE_TIMEOUT_S = 90.0  # after the last kill


class Killer:
    """Kills programs one after another, in an order given by its seed."""

    def __init__(self, stack: Stack, seed: str) -> None:
        self.killed = {"agent": 0, "kahuna": 0, "libvirtd": 0}
        self._stack = stack
        self._random = random.Random(f"killer {seed}")  # noqa: S311 - reproducible
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._kill, name="killer")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _kill(self) -> None:
        while not self._stop.wait(self._random.uniform(*KILL_INTERVAL_S)):
            name = self._random.choice(sorted(self.killed))
            if name == "libvirtd":
                self._stack.host.kill_libvirtd()
                self._stack.host.start_libvirtd()
            else:
                getattr(self._stack, name).kill()
            self.killed[name] += 1


def test_kahuna_and_the_host_agree_after_a_storm(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    stack, chooser = site.stack, random.Random(SEED)  # noqa: S311 - reproducible
    killer = Killer(stack, SEED)
    subnet = site.add_subnet(site.add_vnet("storm"), "10.9.0.0/24")
    alive: list[Parts] = []
    started = time.monotonic()
    with killer.at_work():
        for number in range(INSTANCES):
            while alive and (len(alive) == MAX_GUESTS or chooser.random() < 0.5):
                for part in alive.pop(chooser.randrange(len(alive))):
                    stack.delete(part)
            until(
                lambda: len(stack.list(instance_pb2.Instance)) < MAX_GUESTS,
                timeout=DELETE_TIMEOUT_S,
                what="a guest has gone",
            )
            alive.append(create(site, subnet, f"m{number}"))
    consistency.await_equal(stack, CONVERGE_TIMEOUT_S)
    with capsys.disabled():
        took = f"{time.monotonic() - started:.0f} s, killed {killer.killed}"
        print(f"\n  KOWA_SEED={SEED} KOWA_STORM={INSTANCES}: {took}")  # noqa: T201
    kept = sorted(instance.meta.id for instance, _, _ in alive)
    assert sorted(stack.host.virsh("list", "--uuid").split()) == kept


def create(site: Site, subnet: subnet_pb2.Subnet, name: str) -> Parts:
    """Creates an instance with its own volume and adapter."""
    volume, adapter = site.add_volume(name, site.idle), site.add_adapter(name, subnet)
    return site.add_instance(name, volume, adapter, site.idle), volume, adapter
