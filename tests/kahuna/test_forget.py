"""A host that never comes back: nothing waits for it for ever, and nothing is released by mistake."""

from typing import Any

import pytest

from kowa import contract, errors
from kowa.v2 import agent_pb2, kaktus_pb2, kiwi_pb2
from tests.estate import Estate, estate
from tests.waiting import until
from tests.world import PretendHost, World


@pytest.fixture
def lost(cloud: World) -> Estate:
    """A site with a machine on a host that has gone away, and the machine being deleted."""
    site = estate(cloud)
    site.away()
    for kind in (site.client.instances, site.client.volumes, site.client.adapters):
        for resource in list(kind.list()):
            kind.begin_delete(resource.meta.id)
    return site


def forget(site: Estate, **fields: object) -> object:
    method = contract.load().kinds["Kaktus"].service.methods["forget"]
    request = kaktus_pb2.ForgetKaktusRequest(id=site.host.meta.id, **fields)  # type: ignore[arg-type]
    return site.client.call(method, request).resource


def remaining(site: Estate) -> list[int]:
    kinds = (site.client.instances, site.client.volumes, site.client.adapters)
    return [len(list(kind.list())) for kind in kinds]


def test_what_waits_for_a_lost_host_is_released_when_it_is_forgotten(lost: Estate) -> None:
    assert remaining(lost) == [1, 1, 1]
    with pytest.raises(errors.Invalid, match="yes_host_is_gone: is required"):
        forget(lost)
    forget(lost, yes_host_is_gone=True)
    assert remaining(lost) == [0, 0, 0]
    assert not list(lost.client.operations.list(filter="phase = PHASE_WAITING"))
    # Should it return, it is bound to nothing, told nothing, and what it held concerns it no more.
    back = PretendHost()
    lost.cloud.dial(lost.secret, back)
    until(lambda: lost.cloud.fleet_sessions() and not back.wanted, what="an agent without a task")


def test_an_agent_is_not_taken_from_a_host_that_holds_something(lost: Estate) -> None:
    host = lost.client.of(kaktus_pb2.Kaktus).get(lost.host.meta.id)
    host.agent = ""
    with pytest.raises(errors.Conflict, match="forget it"):
        lost.client.of(kaktus_pb2.Kaktus).begin_update(host, ["agent"])
    assert remaining(lost) == [1, 1, 1]


def test_a_host_deleted_before_it_is_forgotten_holds_nothing_up(lost: Estate) -> None:
    client, agents = lost.client, lost.client.of(agent_pb2.Agent)
    networks: tuple[Any, ...] = (
        (client.subnets, lost.subnet),
        (client.vnets, lost.vnet),
        (client.templates, lost.template),
        (client.storage_pools, lost.pool),
    )
    for kind, resource in (*networks, (client.kaktuses, lost.host), (client.zones, lost.zone)):
        kind.begin_delete(resource.meta.id)
    for token in client.agent_tokens.list():
        client.agent_tokens.delete(token.meta.id)
    with pytest.raises(errors.Conflict, match="whose deletion waits for its word"):
        agents.begin_delete(lost.agent.meta.id)
    forget(lost, yes_host_is_gone=True)
    agents.delete(lost.agent.meta.id)
    left = [kind for kind in contract.load().kinds if kind not in ("Operation", "Region", "Project")]
    stubs = {kind: contract.load().stub(contract.load().kinds[kind].message.name) for kind in left}
    assert {kind: len(list(client.of(stub).list())) for kind, stub in stubs.items()} == dict.fromkeys(left, 0)
    assert not list(client.operations.list(filter="phase = PHASE_WAITING"))
    assert not list(client.operations.list(filter="phase = PHASE_RUNNING"))


def test_a_forgotten_host_gets_no_machines_and_what_waited_on_it_says_why(cloud: World) -> None:
    site = estate(cloud)
    agent = cloud.dial(site.secret, PretendHost())
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    cloud.hang_up(agent)
    waiting = site.machine("web").operation_id
    wanted = site.wanted("db")
    forget(site, yes_host_is_gone=True)
    assert "no agent is bound" in site.client.operations.get(waiting).message
    with pytest.raises(errors.Exhausted, match="host-1: has no agent"):
        site.client.instances.begin_create(wanted)


def test_an_agent_serves_one_node_be_it_host_or_network(cloud: World) -> None:
    site = estate(cloud)
    kiwis = site.client.of(kiwi_pb2.Kiwi)
    wanted = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-1", agent=site.agent.meta.id)
    with pytest.raises(errors.Conflict, match="it serves kaktus host-1; an agent serves one node at most"):
        kiwis.begin_create(wanted)
    wanted.agent = ""
    kiwi = kiwis.begin_create(wanted).resource
    kiwi.agent = site.agent.meta.id
    with pytest.raises(errors.Conflict, match="it serves kaktus host-1"):
        kiwis.begin_update(kiwi, ["agent"])
    other, _ = cloud.agent("agent-2")
    kiwi.agent = other.meta.id
    assert kiwis.begin_update(kiwi, ["agent"]).resource.agent == other.meta.id
    with pytest.raises(errors.Conflict, match="it serves kiwi kiwi-1"):
        cloud.host(site.zone, "host-2", other.meta.id)
