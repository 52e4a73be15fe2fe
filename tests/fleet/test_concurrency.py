"""Many callers at once: capacity holds, nothing is given twice, and a caller that disconnects loses nothing."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from kahuna.domain.lifecycle import OPEN_PHASES
from kahuna.store.database import read
from kahuna.store.tables import Head
from kahuna.store.view import Transition
from kowa import contract, errors
from kowa.aio import AsyncClient
from kowa.v2 import adapter_pb2, instance_pb2, operation_pb2, project_pb2, volume_pb2
from tests.control_plane import GIB, ControlPlane, FakeWorker, control_plane
from tests.kahuna.conftest import database
from tests.site import Site, make_site
from tests.waiting import until

__all__ = ["database"]


@pytest.fixture
def cloud(tmp_path: Path, database: str) -> Iterator[ControlPlane]:
    """An empty Kahuna, on each database."""
    with control_plane(tmp_path, database) as plane:
        yield plane


def at_once(cloud: ControlPlane, calls_of: Callable[[AsyncClient], Sequence[Coroutine[Any, Any, Any]]]) -> list[Any]:
    """Makes calls at the same time; returns the response of each, or the reason of its error."""

    async def run() -> list[Any]:
        async with AsyncClient(cloud.settings.api, key=cloud.key, insecure=True) as client:
            return await asyncio.gather(*calls_of(client), return_exceptions=True)

    outcomes = cloud.loop.run(run())
    return [outcome.reason if isinstance(outcome, errors.KowaError) else outcome for outcome in outcomes]


def empty_disk(site: Site, name: str) -> volume_pb2.Volume:
    """A disk to create, without a template."""
    return volume_pb2.Volume(project=site.project.meta.id, name=name, storage_pool=site.pool.meta.id, size=GIB)


def reasons(outcomes: list[Any]) -> Counter[str]:
    """The number of successes, and of each error reason."""
    return Counter(outcome if isinstance(outcome, str) else "done" for outcome in outcomes)


@pytest.mark.slow
def test_a_host_gets_no_more_instances_than_fit_its_memory(site: Site) -> None:
    site.connect_host(FakeWorker(cpus=1000, memory=40 * GIB))
    names = [f"m{number}" for number in range(64)]
    disks = at_once(
        site.cloud,
        lambda client: [client.of(volume_pb2.Volume).begin_create(empty_disk(site, name)) for name in names],
    )
    wanted = [
        instance_pb2.Instance(
            project=site.project.meta.id,
            name=name,
            zone=site.zone.meta.id,
            vcpus=1,
            memory=GIB,
            volumes=[disk.resource.meta.id],
        )
        for name, disk in zip(names, disks, strict=True)
    ]
    outcomes = at_once(
        site.cloud, lambda client: [client.of(instance_pb2.Instance).begin_create(instance) for instance in wanted]
    )
    assert reasons(outcomes) == {"done": 40, "NO_HOST": 24}
    assert len(list(site.client.instances.list())) == 40


@pytest.mark.parametrize("requested", [10, 20])
def test_no_address_is_allocated_twice(cloud: ControlPlane, requested: int) -> None:
    """A /28 has 13 addresses in addition to the gateway's."""
    site = make_site(cloud, "10.20.0.0/28")
    outcomes = at_once(
        cloud,
        lambda client: [
            client.of(adapter_pb2.Adapter).begin_create(
                adapter_pb2.Adapter(project=site.project.meta.id, name=f"eth{number}", subnet=site.subnet.meta.id)
            )
            for number in range(requested)
        ],
    )
    allocated = [outcome.resource.address for outcome in outcomes if not isinstance(outcome, str)]
    assert reasons(outcomes) == Counter(done=min(requested, 13)) + Counter(NO_ADDRESS=requested - 13)
    assert len(set(allocated)) == len(allocated) == min(requested, 13)
    hardware = {outcome.resource.mac for outcome in outcomes if not isinstance(outcome, str)}
    assert len(hardware) == len(allocated)


def test_one_of_many_callers_gets_a_name(cloud: ControlPlane) -> None:
    outcomes = at_once(
        cloud,
        lambda client: [
            client.of(project_pb2.Project).begin_create(project_pb2.Project(name="shop")) for _ in range(20)
        ],
    )
    assert reasons(outcomes) == {"done": 1, "NAME_TAKEN": 19}


def test_one_of_many_instances_gets_a_disk(site: Site) -> None:
    site.connect_host()
    disk = site.add_volume("os").resource
    outcomes = at_once(
        site.cloud,
        lambda client: [
            client.of(instance_pb2.Instance).begin_create(
                instance_pb2.Instance(
                    project=site.project.meta.id,
                    name=f"m{number}",
                    zone=site.zone.meta.id,
                    vcpus=1,
                    memory=GIB,
                    volumes=[disk.meta.id],
                )
            )
            for number in range(6)
        ],
    )
    assert reasons(outcomes) == {"done": 1, "IN_USE": 5}


def test_a_request_sent_ten_times_at_once_is_done_once(cloud: ControlPlane) -> None:
    request = project_pb2.CreateProjectRequest(project=project_pb2.Project(name="shop"), request_id=str(uuid.uuid4()))
    method = contract.load().kinds["Project"].service.methods["create"]
    outcomes = at_once(cloud, lambda client: [client.call(method, request) for _ in range(10)])
    assert reasons(outcomes) == {"done": 10}
    assert len({outcome.resource.meta.id for outcome in outcomes}) == 1
    operations = {outcome.operation_id for outcome in outcomes}
    assert len(operations) == 1
    assert operations != {""}
    assert [project.name for project in cloud.client.projects.list()] == ["shop"]
    assert len(list(cloud.client.operations.list())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_callers_that_disconnect_around_the_commit_lose_nothing(site: Site, seed: int) -> None:
    host = site.connect_host()
    store, rng = site.cloud.kahuna.store, random.Random(seed)  # noqa: S311 - reproducible
    # A caller disconnects after so many commits; every fifth after its own commit, before it gets the response.
    leave_after = [rng.uniform(0, 150) for _ in range(150)]
    committed = 0

    async def run() -> int:
        async with AsyncClient(site.cloud.settings.api, key=site.cloud.key, insecure=True) as client:
            volumes = client.of(volume_pb2.Volume)
            disks = [empty_disk(site, f"v{number}") for number in range(len(leave_after))]
            calls = [asyncio.create_task(volumes.begin_create(disk)) for disk in disks]

            def follow(_: int, transitions: list[Transition]) -> None:
                nonlocal committed
                created = [after for kind, _, before, after, *_ in transitions if kind == "Volume" and before is None]
                for volume in created:
                    assert isinstance(volume, volume_pb2.Volume)
                    committed += 1
                    if (own := int(volume.name.removeprefix("v"))) % 5 == 0:
                        calls[own].cancel()
                    for number, when in enumerate(leave_after):
                        if when <= committed and number % 5:
                            calls[number].cancel()

            store.view.follow(follow)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            failures = [one for one in outcomes if isinstance(one, BaseException)]
            assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures
            return len(failures)

    cancelled = site.cloud.loop.run(run())
    assert cancelled >= 30, "at least each fifth"
    until(lambda: not store._pending, what="no transaction under way")
    volumes = {volume.meta.id for volume in site.client.of(volume_pb2.Volume).list()}
    assert len(volumes) >= len(leave_after) - cancelled + 30, "each fifth committed, its caller disconnected"
    until(lambda: volumes <= set(host.wanted), what="all volumes at their host")
    operations = site.client.of(operation_pb2.Operation)
    until(
        lambda: all(operation.phase not in OPEN_PHASES for operation in operations.list()), what="every operation ended"
    )
    until(lambda: not store._pending, what="no transaction under way")
    with Session(store.engine) as session:
        head = session.get_one(Head, 1)
        found = [change for kind in contract.load().kinds for change in read(session, kind)]
        rows = {(change.kind, change.id): change.entry for change in found}
    assert head.revision == store.view.revision
    assert rows == {
        (kind, id_): entry for kind in contract.load().kinds for id_, entry in store.view.entries(kind).items()
    }
