"""An agent that stops reading takes a bounded amount of memory, and does not slow others."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from kowa.v2 import agent_pb2, instance_pb2, vnet_pb2
from tests.control_plane import GIB, FakeWorker
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import objects
from tests.fleet.many_agents import AckingAgent, connected_agents, create_hosts
from tests.site import Site
from tests.ssh_keys import long_key
from tests.waiting import until

OTHERS = 99
CHANGES = 30


@pytest.mark.slow
def test_an_agent_that_stops_reading_does_not_slow_others_and_nothing_is_queued_for_it(site: Site, dial: Dial) -> None:
    stopped = dial(site.secret)
    stopped.sign_in()
    stopped.ack(stopped.batch())
    vnet, durations = site.vnet, []
    with connected_agents(site.cloud, create_hosts(site.cloud, site.zone.meta.id, OTHERS)) as agents:
        for number in range(CHANGES):
            # The longest valid description.
            vnet.description = f"{number}".rjust(1024, "x")
            started = time.monotonic()
            vnet = site.client.of(vnet_pb2.Vnet).begin_update(vnet, ["description"]).resource
            until(partial(_all_hold, agents, vnet), what=f"change {number} with the {OTHERS} others")
            durations.append(time.monotonic() - started)
    assert sorted(durations)[CHANGES // 2] < 1
    assert len(site.cloud.kahuna.fleet.sessions[site.agent.meta.id]._dirty) == 1

    # When it reads again, it gets the batch that was sent already, and then the latest: two batches for thirty changes.
    first = stopped.batch()
    assert [described.generation for described in objects(first)] == [2]
    stopped.ack(first)
    latest = objects(stopped.batch())
    assert [described.generation for described in latest] == [vnet.meta.generation]


def _all_hold(agents: list[AckingAgent], vnet: vnet_pb2.Vnet) -> bool:
    return all(agent.held[vnet.meta.id] == vnet.meta.generation for agent in agents)


@pytest.mark.slow
def test_an_agent_that_does_not_read_a_large_batch_is_disconnected(
    site: Site, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection buffers some megabytes before it blocks; then the agent has a limited time to read on."""
    monkeypatch.setattr("kahuna.fleet.service.ACK_TIMEOUT_S", 1)
    task = site.cloud.dial(site.secret, FakeWorker(cpus=64, memory=64 * GIB), state="first")
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    site.cloud.disconnect(task)
    with ThreadPoolExecutor(4) as many:
        list(many.map(lambda number: _huge(site, number), range(8)))
    stream = dial(site.secret)
    stream.sign_in()
    sessions = site.cloud.kahuna.fleet.sessions
    until(lambda: site.agent.meta.id in sessions, what="a session")
    until(lambda: site.agent.meta.id not in sessions, what="no session")
    agents = site.client.of(agent_pb2.Agent)
    until(lambda: agents.get(site.agent.meta.id).status.stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")
    assert agents.get(site.agent.meta.id).status.held_revision < site.cloud.kahuna.store.view.revision
    # Kahuna does not wait for the agent that does not read: it stops at once.
    site.cloud.stop()
    site.cloud.start()


def _huge(site: Site, number: int) -> instance_pb2.Instance:
    wanted = site.wanted(f"m{number}")
    wanted.ssh_keys.extend([long_key(8192)] * 64)
    wanted.metadata.update({str(name): "😀" * 4096 for name in range(64)})
    instance: instance_pb2.Instance = site.client.instances.begin_create(wanted).resource
    return instance
