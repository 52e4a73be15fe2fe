"""Many callers at once: sums hold, nothing is taken twice, and who goes away in the middle loses nothing."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from kahuna.domain.lifecycle import OPEN
from kahuna.store.database import read
from kahuna.store.tables import Head
from kahuna.store.view import Transition
from kowa import contract, errors
from kowa.aio import AsyncClient
from kowa.v2 import adapter_pb2, instance_pb2, operation_pb2, project_pb2, volume_pb2
from tests.control_plane import GIB, ControlPlane, FakeHost, control_plane
from tests.kahuna.conftest import database
from tests.site import Site, make_site
from tests.waiting import until

__all__ = ["database"]


@pytest.fixture
def cloud(tmp_path: Path, database: str) -> Iterator[ControlPlane]:
    """A Kahuna, empty, on each database."""
    with control_plane(tmp_path, database) as made:
        yield made


def at_once(cloud: ControlPlane, ask: Callable[[AsyncClient], Sequence[Coroutine[Any, Any, Any]]]) -> list[Any]:
    """Makes calls together; the answer of each, or the reason why not."""

    async def run() -> list[Any]:
        async with AsyncClient(cloud.settings.api, key=cloud.key, insecure=True) as client:
            return await asyncio.gather(*ask(client), return_exceptions=True)

    answers = cloud.loop.run(run())
    return [answer.reason if isinstance(answer, errors.KowaError) else answer for answer in answers]


def empty(site: Site, name: str) -> volume_pb2.Volume:
    """A disk to ask for, from no template."""
    return volume_pb2.Volume(project=site.project.meta.id, name=name, storage_pool=site.pool.meta.id, size=GIB)


def reasons(answers: list[Any]) -> Counter[str]:
    """How many succeeded, and why the others did not."""
    return Counter(answer if isinstance(answer, str) else "done" for answer in answers)


@pytest.mark.slow
def test_no_more_machines_than_the_host_has_room_for(site: Site) -> None:
    site.connect_host(FakeHost(cpus=1000, memory=40 * GIB))
    names = [f"m{number}" for number in range(64)]
    disks = at_once(
        site.cloud,
        lambda client: [client.of(volume_pb2.Volume).begin_create(empty(site, name)) for name in names],
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
    answers = at_once(site.cloud, lambda client: [client.of(instance_pb2.Instance).begin_create(one) for one in wanted])
    assert reasons(answers) == {"done": 40, "NO_HOST": 24}
    assert len(list(site.client.instances.list())) == 40


@pytest.mark.parametrize("asked", [10, 20])
def test_no_address_is_given_twice(cloud: ControlPlane, asked: int) -> None:
    """A /28 has 13 addresses beside the gateway's."""
    site = make_site(cloud, "10.20.0.0/28")
    answers = at_once(
        cloud,
        lambda client: [
            client.of(adapter_pb2.Adapter).begin_create(
                adapter_pb2.Adapter(project=site.project.meta.id, name=f"eth{number}", subnet=site.subnet.meta.id)
            )
            for number in range(asked)
        ],
    )
    given = [answer.resource.address for answer in answers if not isinstance(answer, str)]
    assert reasons(answers) == Counter(done=min(asked, 13)) + Counter(NO_ADDRESS=asked - 13)
    assert len(set(given)) == len(given) == min(asked, 13)
    hardware = {answer.resource.mac for answer in answers if not isinstance(answer, str)}
    assert len(hardware) == len(given)


def test_a_name_goes_to_one(cloud: ControlPlane) -> None:
    answers = at_once(
        cloud,
        lambda client: [
            client.of(project_pb2.Project).begin_create(project_pb2.Project(name="shop")) for _ in range(20)
        ],
    )
    assert reasons(answers) == {"done": 1, "NAME_TAKEN": 19}


def test_a_disk_goes_to_one_machine(site: Site) -> None:
    site.connect_host()
    disk = site.volume("os").resource
    answers = at_once(
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
    assert reasons(answers) == {"done": 1, "IN_USE": 5}


def test_a_request_sent_ten_times_at_once_is_done_once(cloud: ControlPlane) -> None:
    request = project_pb2.CreateProjectRequest(project=project_pb2.Project(name="shop"), request_id=str(uuid.uuid4()))
    method = contract.load().kinds["Project"].service.methods["create"]
    answers = at_once(cloud, lambda client: [client.call(method, request) for _ in range(10)])
    assert reasons(answers) == {"done": 10}
    assert len({answer.resource.meta.id for answer in answers}) == 1
    operations = {answer.operation_id for answer in answers}
    assert len(operations) == 1
    assert operations != {""}
    assert [project.name for project in cloud.client.projects.list()] == ["shop"]
    assert len(list(cloud.client.operations.list())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_callers_that_go_away_around_the_commit_lose_nothing(site: Site, seed: int) -> None:
    host = site.connect_host()
    store, chance = site.cloud.kahuna.store, random.Random(seed)  # noqa: S311 - a test's, and the same each time
    # Each goes when so many are committed, however fast that is; every fifth when its own is, before it hears of that.
    goes = [chance.uniform(0, 150) for _ in range(150)]
    committed = 0

    async def run() -> int:
        async with AsyncClient(site.cloud.settings.api, key=site.cloud.key, insecure=True) as client:
            volumes = client.of(volume_pb2.Volume)
            calls = [asyncio.create_task(volumes.begin_create(empty(site, f"v{n}"))) for n in range(len(goes))]

            def follow(_: int, transitions: list[Transition]) -> None:
                nonlocal committed
                created = [after for kind, _, before, after, *_ in transitions if kind == "Volume" and before is None]
                for volume in created:
                    assert isinstance(volume, volume_pb2.Volume)
                    committed += 1
                    if (own := int(volume.name.removeprefix("v"))) % 5 == 0:
                        calls[own].cancel()
                    for number, when in enumerate(goes):
                        if when <= committed and number % 5:
                            calls[number].cancel()

            store.view.follow(follow)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            failures = [one for one in outcomes if isinstance(one, BaseException)]
            assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures
            return len(failures)

    given_up = site.cloud.loop.run(run())
    assert given_up >= 30, "each fifth at least"
    until(lambda: not store._pending, what="no transaction under way")
    volumes = {volume.meta.id for volume in site.client.of(volume_pb2.Volume).list()}
    assert len(volumes) >= len(goes) - given_up + 30, "each fifth was committed, and its caller gone"
    until(lambda: volumes <= set(host.wanted), what="all volumes at their host")
    operations = site.client.of(operation_pb2.Operation)
    until(lambda: all(operation.phase not in OPEN for operation in operations.list()), what="every operation ended")
    until(lambda: not store._pending, what="no transaction under way")
    with Session(store.engine) as session:
        head = session.get_one(Head, 1)
        found = [change for kind in contract.load().kinds for change in read(session, kind)]
        rows = {(change.kind, change.id): change.entry for change in found}
    assert head.revision == store.view.revision
    assert rows == {
        (kind, id_): entry for kind in contract.load().kinds for id_, entry in store.view.entries(kind).items()
    }
