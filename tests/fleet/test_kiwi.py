"""The network agent: the slices it accepts, the messages of its refusals, and its status as operators see it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.message import Message

from agent_kiwi.main import Settings
from agent_kiwi.worker import KINDS, Kiwi, KiwiWorker, Subnet, Vnet
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Refused
from kowa.runtime.settings import VERSION
from kowa.runtime.store import Holdings
from kowa.v2 import agent_pb2, kiwi_pb2, meta_pb2, subnet_pb2, vnet_pb2
from tests.fleet_resources import content, edited
from tests.kaktus.loop_harness import Feed
from tests.kaktus.slices import Slice
from tests.site import Site
from tests.waiting import until

NODE, OTHER, LAN, SUBNET = (f"00000000-0000-4000-8000-{number:012}" for number in range(4))


def described(
    id_: str, *, generation: int = 1, gone: bool = False, resource: Message | None = None
) -> fleet_pb2.Object:
    """An object as Kahuna sends it."""
    packed = resources.pack(resource) if resource is not None else None
    return fleet_pb2.Object(id=id_, generation=generation, gone=gone, resource=packed)


def subnet(*, gone: bool = False, **fields: object) -> fleet_pb2.Object:
    """A valid subnet, with these fields changed."""
    valid: dict[str, object] = {"vnet": LAN, "name": "lan", "cidr": "10.20.0.0/24", "gateway": "10.20.0.1"}
    return described(SUBNET, gone=gone, resource=subnet_pb2.Subnet(**valid | fields))  # type: ignore[arg-type]


KIWI = described(NODE, generation=3, resource=kiwi_pb2.Kiwi(name="kiwi-1"))
VNET = described(LAN, resource=vnet_pb2.Vnet(name="lan"))


def test_a_slice_of_a_node_a_vnet_and_its_subnet_is_parsed() -> None:
    desired = KINDS.parse({NODE: KIWI, LAN: VNET, SUBNET: subnet(dns=["9.9.9.9"])})
    assert isinstance(desired.node, Kiwi)
    assert (desired.node.name, desired.of(Vnet)[LAN].name) == ("kiwi-1", "lan")
    assert (str(desired.of(Subnet)[SUBNET].network), str(desired.of(Subnet)[SUBNET].gateway)) == (
        "10.20.0.0/24",
        "10.20.0.1",
    )


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (described(LAN), f"unknown kind {LAN}: this agent knows no such kind; a newer one may"),
        (subnet(cidr="10.20.0.0/33"), f"subnet {SUBNET}: cidr '10.20.0.0/33' is not a network"),
        (subnet(cidr="10.20.0.7/24"), f"subnet {SUBNET}: cidr '10.20.0.7/24' is not a network"),
        (subnet(cidr="lan"), f"subnet {SUBNET}: cidr 'lan' is not a network"),
        (subnet(gateway="router"), f"subnet {SUBNET}: gateway 'router' is not an IPv4 address"),
        (subnet(gateway="10.21.0.1"), f"subnet {SUBNET}: gateway 10.21.0.1 is not a host address of 10.20.0.0/24"),
        (subnet(gateway="10.20.0.255"), f"subnet {SUBNET}: gateway 10.20.0.255 is not a host address of 10.20.0.0/24"),
        (subnet(dns=["quad9"]), f"subnet {SUBNET}: dns 'quad9' is not an IPv4 address"),
        (described("lan", resource=vnet_pb2.Vnet()), "vnet lan: "),
        (
            described(OTHER, resource=kiwi_pb2.Kiwi()),
            f"kiwi {OTHER}: there is another, {NODE}; an agent belongs to one",
        ),
    ],
)
def test_an_invalid_object_is_refused_by_name_with_the_reason(sent: fleet_pb2.Object, message: str) -> None:
    with pytest.raises(Refused) as refused:
        KINDS.parse({NODE: KIWI, sent.id: sent})
    assert str(refused.value).startswith(message)


def test_a_deleted_object_may_be_invalid() -> None:
    desired = KINDS.parse({SUBNET: subnet(gone=True, cidr="from a newer version")})
    assert desired.of(Subnet)[SUBNET].gone


def test_the_node_is_reported_as_applied_and_says_that_it_serves_no_networks_yet(tmp_path: Path) -> None:
    reports = reports_on({NODE: KIWI, LAN: VNET, SUBNET: subnet()}, tmp_path)
    assert {id_: (report.outcome, report.observed_generation) for id_, report in reports.items()} == {
        NODE: (fleet_pb2.OUTCOME_APPLIED, 3),
        LAN: (fleet_pb2.OUTCOME_APPLIED, 1),
        SUBNET: (fleet_pb2.OUTCOME_APPLIED, 1),
    }
    node = content(reports[NODE])
    assert node.status == kiwi_pb2.KiwiStatus(version=VERSION)
    assert [condition.type for condition in node.meta.conditions] == ["NetworksNotServed"]


def test_a_deleted_vnet_is_reported_gone(tmp_path: Path) -> None:
    gone = described(LAN, generation=2, gone=True, resource=vnet_pb2.Vnet(name="lan"))
    reports = reports_on({NODE: KIWI, LAN: gone}, tmp_path)
    assert (reports[LAN].gone, reports[LAN].observed_generation) == (True, 2)


def reports_on(objects: dict[str, fleet_pb2.Object], folder: Path) -> dict[str, fleet_pb2.Report]:
    """The agent's reports on a slice."""

    async def run() -> dict[str, fleet_pb2.Report]:
        feed = Feed(Slice(objects))
        settings = Settings(servers=(), ca=folder, token=folder, state=folder)
        running = asyncio.create_task(KiwiWorker(settings).run(feed))
        await feed.until(lambda: feed.reports.keys() == objects.keys())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return feed.reports

    return asyncio.run(run())


def test_the_network_agent_imports_no_hypervisor_libraries() -> None:
    script = "import agent_kiwi.worker, kowa.runtime.agent, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"libvirt", "pycdlib", "httpx", "agent_kaktus", "kahuna", "sqlmodel"} & set(loaded)


@pytest.fixture
def config(site: Site, tmp_path: Path) -> Path:
    """The configuration file of an agent, whose network node is in the site's region."""
    agent, secret = site.cloud.add_agent("kiwi-agent")
    member = kiwi_pb2.Kiwi.Member(agent=agent.meta.id, zone=site.zone.meta.id)
    node = kiwi_pb2.Kiwi(region=site.region.meta.id, name="kiwi-1", members=[member])
    site.client.of(kiwi_pb2.Kiwi).begin_create(node)
    (tmp_path / "token").write_text(secret + "\n")
    (tmp_path / "kiwi.toml").write_text(
        f"servers = ['{site.cloud.fleet_endpoint}']\nca = '{tmp_path / 'ca.pem'}'\n"
        f"token = '{tmp_path / 'token'}'\nstate = '{tmp_path / 'kiwi'}'\n"
    )
    return tmp_path / "kiwi.toml"


def test_the_agent_program_signs_in_and_reports_deleted_vnets_gone(site: Site, config: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "agent_kiwi.main", "--config", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        agents, kiwis = site.client.of(agent_pb2.Agent), site.client.of(kiwi_pb2.Kiwi)
        agent = next(agents.list(filter='name = "kiwi-agent"'))
        until(lambda: agents.get(agent.meta.id).status.held_revision, what="the agent's ack")
        until(lambda: next(kiwis.list()).status.version == VERSION, what="its version")
        assert "NetworksNotServed" in _kowactl(site, "kiwi", "get", "kiwi-1")
        shown = _kowactl(site, "agent", "get", "kiwi-agent", "-o", "json")
        assert json.loads(shown)["status"]["held_revision"] == str(agents.get(agent.meta.id).status.held_revision)
        assert "held_revision" in _kowactl(site, "agent", "get", "kiwi-agent")
        assert (config.parent / "kiwi" / "holdings.db").stat().st_mode & 0o077 == 0

        # The host's agent has never connected, so Kahuna waits for this one only.
        site.client.subnets.delete(site.subnet.meta.id, limit=60)
        site.client.vnets.delete(site.vnet.meta.id, limit=60)
        program.send_signal(signal.SIGSTOP)
        dmz = site.client.of(vnet_pb2.Vnet).begin_create(vnet_pb2.Vnet(region=site.region.meta.id, name="dmz"))
        site.client.vnets.begin_delete(dmz.resource.meta.id)
        # Only the agent, which is paused, can report it gone.
        assert site.client.vnets.get(dmz.resource.meta.id).meta.state == meta_pb2.STATE_DELETING
        program.send_signal(signal.SIGCONT)
        until(lambda: not list(site.client.vnets.list()), what="the vnet gone")
    finally:
        program.send_signal(signal.SIGCONT)
        program.terminate()
        assert program.wait(60) == 0


def test_the_agent_gets_a_stored_slice_again_that_it_can_no_longer_parse(site: Site, config: Path) -> None:
    """As after a downgrade of the agent: Kahuna knows all stored generations, and sends the slice all the same."""
    agents = site.client.of(agent_pb2.Agent)
    agent = next(agents.list(filter='name = "kiwi-agent"'))
    state = config.parent / "kiwi"

    def in_step(revision: int) -> bool:
        status = agents.get(agent.meta.id).status
        return status.held_revision >= revision and not status.refusal

    def serve_until_in_step() -> None:
        """Changes the vnet, and runs the agent until it holds the change."""
        site.vnet.description += "."
        site.vnet = site.client.of(vnet_pb2.Vnet).update(site.vnet, ["description"])
        with subprocess.Popen([sys.executable, "-m", "agent_kiwi.main", "--config", str(config)]) as program:
            try:
                until(lambda: in_step(site.vnet.meta.revision), what="the agent in step")
            finally:
                program.terminate()
        assert program.returncode == 0

    serve_until_in_step()
    holdings = Holdings(state)
    valid = dict(holdings.objects)
    damaged = fleet_pb2.Object()
    damaged.CopyFrom(valid[site.subnet.meta.id])
    with edited(damaged) as resource:
        resource.cidr = "of a newer version"
    holdings.store([damaged, described(OTHER)], [])
    holdings.close()
    serve_until_in_step()
    holdings = Holdings(state)
    assert set(holdings.objects) == set(valid)
    assert holdings.objects[site.subnet.meta.id] == valid[site.subnet.meta.id]
    holdings.close()


def test_deleting_a_vnet_waits_for_hosts_and_for_network_nodes(site: Site, config: Path) -> None:
    site.connect_host()
    deletion = site.client.subnets.begin_delete(site.subnet.meta.id)
    site.client.operations.wait(deletion.operation_id, 60)
    # A network node that signed in once is waited for, also while it is offline.
    program = subprocess.Popen([sys.executable, "-m", "agent_kiwi.main", "--config", str(config)])
    agents = site.client.of(agent_pb2.Agent)
    agent = next(agents.list(filter='name = "kiwi-agent"'))
    until(lambda: agents.get(agent.meta.id).status.held_revision, what="the agent's ack")
    program.terminate()
    assert program.wait(60) == 0
    until(lambda: agents.get(agent.meta.id).status.stream == agent_pb2.STREAM_OFFLINE, what="OFFLINE")
    deletion = site.client.vnets.begin_delete(site.vnet.meta.id)
    operation = site.client.operations.get(deletion.operation_id)
    assert operation.message.startswith("HOST_OFFLINE: agent kiwi-agent is not connected")
    with subprocess.Popen([sys.executable, "-m", "agent_kiwi.main", "--config", str(config)]) as program:
        site.client.operations.wait(deletion.operation_id, 60)
        program.terminate()


def _kowactl(site: Site, *arguments: str) -> str:
    script = "import sys; from kowactl.main import main; sys.argv[0] = 'kowactl'; main()"
    environment = {"KOWABUNGA_ENDPOINT": site.cloud.settings.api, "KOWABUNGA_API_KEY": site.cloud.key}
    done = subprocess.run(
        [sys.executable, "-c", script, "--insecure", *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout
