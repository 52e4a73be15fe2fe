"""Forgetting a lost host: everything that waits for it is released, and nothing else."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlmodel import Session, select

from kahuna.kinds.agent import nodes_of
from kahuna.kinds.command import Command
from kowa import contract, errors
from kowa.v2 import agent_pb2, kaktus_pb2, kiwi_pb2, meta_pb2, operation_pb2, vnet_pb2
from tests.control_plane import ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def lost(cloud: ControlPlane) -> Site:
    """A site with an offline host and an instance on it, which is being deleted with its disk and adapter."""
    site = make_site(cloud)
    site.running_on_lost_host()
    for kind in (site.client.instances, site.client.volumes, site.client.adapters):
        for resource in list(kind.list()):
            kind.begin_delete(resource.meta.id)
    return site


def forget(site: Site, **fields: object) -> object:
    method = contract.load().kinds["Kaktus"].service.methods["forget"]
    request = kaktus_pb2.ForgetKaktusRequest(id=site.host.meta.id, **fields)  # type: ignore[arg-type]
    return site.client.call(method, request).resource


def remaining(site: Site) -> list[int]:
    kinds = (site.client.instances, site.client.volumes, site.client.adapters)
    return [len(list(kind.list())) for kind in kinds]


def test_forgetting_a_host_releases_what_waits_for_it(lost: Site) -> None:
    assert remaining(lost) == [1, 1, 1]
    with pytest.raises(errors.Invalid, match="yes_host_is_gone: is required"):
        forget(lost)
    forget(lost, yes_host_is_gone=True)
    assert remaining(lost) == [0, 0, 0]
    assert not list(lost.client.operations.list(filter="phase = PHASE_WAITING"))
    # If it returns, its agent has no node: its slice is empty.
    back = FakeWorker()
    lost.cloud.dial(lost.secret, back)
    until(lambda: lost.cloud.fleet_sessions() and not back.wanted, what="an agent without a slice")


def test_removing_a_lost_member_of_a_network_node_releases_what_waits_for_it(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    agent, secret = cloud.add_agent("agent-2")
    running = cloud.dial(secret, FakeWorker())
    until(cloud.fleet_sessions, what="the agent")
    cloud.disconnect(running)
    member = kiwi_pb2.Kiwi.Member(agent=agent.meta.id, zone=site.zone.meta.id)
    wanted = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-1", members=[member])
    kiwi = site.client.of(kiwi_pb2.Kiwi).begin_create(wanted).resource
    lan = site.client.vnets.begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="idle")).resource
    site.client.vnets.begin_delete(lan.meta.id)
    assert [vnet.meta.state for vnet in site.client.vnets.list(filter='name = "idle"')] == [meta_pb2.STATE_DELETING]
    del kiwi.members[:]
    site.client.of(kiwi_pb2.Kiwi).begin_update(kiwi, ["members"])
    assert not list(site.client.vnets.list(filter='name = "idle"'))


def test_unbinding_the_agent_of_a_host_with_instances_is_refused(lost: Site) -> None:
    host = lost.client.of(kaktus_pb2.Kaktus).get(lost.host.meta.id)
    host.agent = ""
    with pytest.raises(errors.Conflict, match="forget it"):
        lost.client.of(kaktus_pb2.Kaktus).begin_update(host, ["agent"])
    assert remaining(lost) == [1, 1, 1]


def test_a_deleted_host_can_be_forgotten_and_nothing_remains(lost: Site) -> None:
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
    kinds = [kind for kind in contract.load().kinds if kind not in ("Operation", "Region", "Project")]
    stubs = {kind: contract.load().stub(contract.load().kinds[kind].message.name) for kind in kinds}
    assert {kind: len(list(client.of(stub).list())) for kind, stub in stubs.items()} == dict.fromkeys(kinds, 0)
    assert not list(client.operations.list(filter="phase = PHASE_WAITING"))
    assert not list(client.operations.list(filter="phase = PHASE_RUNNING"))


def test_a_change_of_what_is_being_deleted_is_refused_for_that_whatever_its_etag(lost: Site) -> None:
    (web,) = lost.client.instances.list()
    web.meta.etag, web.description = "0" * 16, "new"
    with pytest.raises(errors.KowaError) as refused:
        lost.client.instances.begin_update(web, ["description"])
    assert refused.value.reason == "DELETING"


def test_a_node_that_another_transaction_removes_meanwhile_serves_nobody() -> None:
    reader: Any = SimpleNamespace(sources=lambda *_: {"removed"}, find=lambda *_: None)
    assert list(nodes_of(reader, "agent")) == []


def test_a_forgotten_host_gets_no_instances_and_waiting_operations_say_why(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    agent = cloud.dial(site.secret, FakeWorker())
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    cloud.disconnect(agent)
    waiting = site.add_instance("web").operation_id
    wanted = site.wanted("db")
    forget(site, yes_host_is_gone=True)
    assert "no agent is bound" in site.client.operations.get(waiting).message
    with pytest.raises(errors.Exhausted, match="host-1: has no agent"):
        site.client.instances.begin_create(wanted)


def test_an_agent_serves_at_most_one_node(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    kiwis = site.client.of(kiwi_pb2.Kiwi)

    def member(agent: str, zone: str = "") -> kiwi_pb2.Kiwi.Member:
        return kiwi_pb2.Kiwi.Member(agent=agent, zone=zone or site.zone.meta.id)

    wanted = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-1", members=[member(site.agent.meta.id)])
    with pytest.raises(errors.Conflict, match=r"members\[0\].agent: it serves kaktus host-1; an agent serves one node"):
        kiwis.begin_create(wanted)
    del wanted.members[:]
    kiwi = kiwis.begin_create(wanted).resource
    kiwi.members.append(member(site.agent.meta.id))
    with pytest.raises(errors.Conflict, match="it serves kaktus host-1"):
        kiwis.begin_update(kiwi, ["members"])
    other, _ = cloud.add_agent("agent-2")
    kiwi.members[0].agent = other.meta.id
    assert kiwis.begin_update(kiwi, ["members"]).resource.members[0].agent == other.meta.id
    with pytest.raises(errors.Conflict, match="it serves kiwi kiwi-1"):
        cloud.add_host(site.zone, "host-2", other.meta.id)
    second = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-2", members=[member(other.meta.id)])
    with pytest.raises(errors.Conflict, match="it serves kiwi kiwi-1"):
        kiwis.begin_create(second)
    with pytest.raises(errors.Conflict, match="has 1 agent-token: first, 1 kiwi: kiwi-1; take it from kiwi-1"):
        site.client.agents.begin_delete(other.meta.id)
    far = cloud.add_zone(cloud.add_region("us"), "us-a")
    second.members[0].CopyFrom(member(cloud.add_agent("agent-3")[0].meta.id, far.meta.id))
    with pytest.raises(errors.Invalid, match=r"members\[0\].zone: zone us-a lies in another region than the kiwi"):
        kiwis.begin_create(second)


def test_two_members_of_a_kiwi_with_one_underlay_address_are_refused(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    members = [
        kiwi_pb2.Kiwi.Member(agent=cloud.add_agent(name)[0].meta.id, zone=site.zone.meta.id, underlay_address=address)
        for name, address in {"agent-2": "fd00::1", "agent-3": "", "agent-4": "", "agent-5": "fd00::1"}.items()
    ]
    wanted = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-1", members=members)
    message = r"members\[3\].underlay_address: fd00::1 is the address of members\[0\], too; give each member its own"
    with pytest.raises(errors.Invalid, match=message):
        site.client.of(kiwi_pb2.Kiwi).begin_create(wanted)
    members[3].underlay_address = "fd00::2"
    wanted = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-1", members=members)
    kiwi = site.client.of(kiwi_pb2.Kiwi).create(wanted)
    # As one that was stored before this was checked.
    kiwi.members[3].underlay_address = "fd00::1"
    cloud.loop.run(cloud.kahuna.store.run(lambda tx: tx.put("Kiwi", kiwi)))
    kiwi.meta.etag, kiwi.labels["tier"] = "", "edge"
    changed = site.client.of(kiwi_pb2.Kiwi).begin_update(kiwi, ["labels", "members"]).resource
    assert (dict(changed.labels), list(changed.members)) == ({"tier": "edge"}, list(kiwi.members))
    kiwi.meta.etag = ""
    kiwi.members[2].underlay_address = "fd00::2"
    with pytest.raises(errors.Invalid, match=message):
        site.client.of(kiwi_pb2.Kiwi).begin_update(kiwi, ["members"])


def test_commands_for_a_forgotten_host_end_as_unknown_or_expired(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    host = FakeWorker()
    host.hangs.set()
    agent = cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    sent = site.client.instances.begin("reset", web.meta.id).operation_id
    until(lambda: host.done, what="the start of the command")
    cloud.disconnect(agent)
    until(lambda: not cloud.fleet_sessions(), what="the end of the session")
    unsent = site.client.instances.begin("reboot", web.meta.id).operation_id

    forget(site, yes_host_is_gone=True)
    operations = [site.client.operations.get(operation) for operation in (sent, unsent)]
    assert [operation.phase for operation in operations] == [operation_pb2.PHASE_FAILED] * 2
    assert [operation.message.partition(":")[0] for operation in operations] == ["UNKNOWN", "EXPIRED"]
    # Another agent takes over the host, and the old one comes back: it gets no command.
    other, secret = cloud.add_agent("agent-2")
    record = site.client.kaktuses.get(site.host.meta.id)
    record.agent = other.meta.id
    site.client.of(kaktus_pb2.Kaktus).begin_update(record, ["agent"])
    taken_over, back = FakeWorker(), FakeWorker()
    cloud.dial(secret, taken_over, state="other")
    cloud.dial(site.secret, back)
    until(lambda: web.meta.id in taken_over.wanted, what="the instance at its new agent")
    until(lambda: len(cloud.fleet_sessions()) == 2, what="both agents")
    done = site.client.instances.begin("reboot", web.meta.id).operation_id
    assert site.client.operations.wait(done, 60).phase == operation_pb2.PHASE_DONE
    assert (taken_over.done, back.done) == ([("reboot", web.meta.id)], [])


def test_deleting_an_instance_removes_its_commands(cloud: ControlPlane) -> None:
    site = make_site(cloud)
    host = site.connect_host()
    host.hangs.set()
    web = site.client.instances.create(site.wanted("web"))
    started = site.client.instances.begin("reset", web.meta.id).operation_id
    until(lambda: host.done, what="the start of the command")
    site.client.instances.delete(web.meta.id)
    assert site.client.operations.get(started).phase == operation_pb2.PHASE_SUPERSEDED
    with Session(cloud.kahuna.store.engine) as session:
        assert list(session.exec(select(Command))) == []
