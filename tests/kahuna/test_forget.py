"""A host that never comes back: nothing waits for it for ever, and nothing is released by mistake."""

import pytest

from kowa import contract, errors
from kowa.v2 import kaktus_pb2
from tests.estate import Estate, estate
from tests.waiting import until
from tests.world import PretendHost, World


@pytest.fixture
def lost(cloud: World) -> Estate:
    """A site with a machine on a host that has gone away, and the machine being deleted."""
    site = estate(cloud)
    agent = cloud.dial(site.secret, PretendHost())
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    site.client.instances.create(site.wanted("web"))
    cloud.hang_up(agent)
    until(lambda: not cloud.fleet_sessions(), what="the end of the session")
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
