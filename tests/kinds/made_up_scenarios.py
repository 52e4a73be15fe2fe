"""The made-up kinds from their contract to an agent and kowactl. Run by `test_made_up.py`, in its own process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from made_up.v1 import balancer_pb2, farm_pb2  # type: ignore[import-not-found]
from sqlmodel import SQLModel

from kowa import errors, resources
from kowa.v2 import agent_pb2, meta_pb2, operation_pb2
from tests.clients import Kowactl
from tests.control_plane import ControlPlane, FakeWorker, control_plane
from tests.fleet_resources import content
from tests.made_up import PROGRAM, kinds, migration
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture(scope="module", autouse=True)
def migrations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kahuna's migrations with that of the made-up kinds."""
    migration.migrate_with(tmp_path_factory.mktemp("schema"))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as cloud:
        yield cloud


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site with a connected host and a farm called north."""
    site = make_site(cloud)
    site.connect_host(FakeWorker())
    cloud.client.of(farm_pb2.Farm).create(farm_pb2.Farm(name="north"))
    return site


def second_host(site: Site) -> tuple[str, FakeWorker]:
    agent, secret = site.cloud.add_agent("agent-2")
    host, worker = site.cloud.add_host(site.zone, "host-2", agent.meta.id), FakeWorker()
    site.cloud.dial(secret, worker, "second")
    until(lambda: site.client.kaktuses.get(host.meta.id).status.memory, what="the second host")
    return host.meta.id, worker


def farm(site: Site) -> Any:
    return next(site.cloud.client.of(farm_pb2.Farm).list())


def balancer(site: Site, name: str = "web", **fields: Any) -> Any:
    return balancer_pb2.Balancer(**{"farm": farm(site).meta.id, "name": name, "address": "2001:db8::1", **fields})


def names(worker: FakeWorker, kind: str) -> list[str]:
    """The names of the resources of a kind in an agent's slice."""
    wanted = [one for one in worker.wanted.values() if resources.noun_of(one.resource) == kind]
    return sorted(content(one).name for one in wanted)


def test_the_migrations_create_the_tables_of_the_code(cloud: ControlPlane) -> None:
    with cloud.kahuna.store.engine.connect() as connection:
        differences: list[Any] = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    assert differences == []


def test_a_balancer_from_its_creation_to_its_deletion(site: Site) -> None:
    """Created, applied by two agents, refused, drained and deleted."""
    balancers, second = site.cloud.client.of(balancer_pb2.Balancer), second_host(site)
    host, other, worker = site.host.meta.id, *second
    created = balancers.create(balancer(site, members=[{"kaktus": host, "weight": 7}, {"kaktus": other}]))
    assert created.meta.state == meta_pb2.STATE_READY
    assert [member.weight for member in created.members] == [7, 1]
    assert (names(worker, "balancer"), names(worker, "farm")) == (["web"], ["north"])
    with pytest.raises(errors.KowaError, match="another balancer of its farm is called 'web'"):
        balancers.create(balancer(site, address="2001:db8::2"))
    with pytest.raises(errors.KowaError, match="address: 2001:db8::1 belongs to another balancer"):
        balancers.create(balancer(site, "db"))
    with pytest.raises(errors.KowaError, match="kaktus host-2 has 1 balancer: web; take it from web or delete"):
        site.client.kaktuses.begin_delete(other)
    with pytest.raises(errors.KowaError, match=r"kaktus: no kaktus has the id 'nobody'"):
        balancers.begin("drain", created.meta.id, kaktus="nobody")
    drained = balancers.begin("drain", created.meta.id, kaktus=other)
    assert site.client.operations.wait(drained.operation_id, 10).phase == operation_pb2.PHASE_DONE
    until(
        lambda: names(worker, "balancer") == [] and names(worker, "farm") == [], what="the removal from the second host"
    )
    site.client.kaktuses.begin_update(site.client.kaktuses.get(other), [])
    balancers.delete(created.meta.id, limit=10)
    assert list(balancers.list()) == []
    assert list(site.cloud.client.of(agent_pb2.Agent).list(filter='name = "agent-2"'))


def test_kowactl_creates_a_balancer_without_json_and_by_names(site: Site) -> None:
    command = Kowactl(site.cloud.settings.api, site.cloud.key, (*PROGRAM, "kowactl"))
    arguments = (
        "create",
        "--farm",
        "north",
        "--name",
        "web",
        "--address",
        "fd00::1",
        "--member",
        "kaktus=host-1,weight=3",
    )
    command.run("--insecure", "balancer", *arguments)
    printed = json.loads(command.run("--insecure", "balancer", "get", "web", "-o", "json"))
    assert (printed["members"][0]["weight"], printed["meta"]["state"]) == (3, "STATE_READY")
    without = ("--without", "kaktus=host-1", "-o", "json")
    moved = command.run("--insecure", "balancer", "rebalance", "--farm", "north", *without)
    assert json.loads(moved) == {"moved": 1}


assert kinds, "the import registers the kinds"
