"""A database that commits, and whose answer does not arrive: nobody waits for ever and nothing is done twice."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kahuna.domain.errors import Refusal
from kowa import contract, errors
from kowa.client import Client
from kowa.v2 import instance_pb2, operation_pb2, region_pb2
from tests.control_plane import ControlPlane, FakeHost, control_plane
from tests.lossy_proxy import LossyProxy
from tests.postgres import Postgres
from tests.site import make_site
from tests.waiting import until


@pytest.fixture
def proxy(server: Postgres) -> Iterator[LossyProxy]:
    """Between Kahuna and the database."""
    with tempfile.TemporaryDirectory(prefix="line-") as folder:
        made = LossyProxy(server.folder, Path(folder))
        yield made
        made.close()


@pytest.fixture
def cloud(tmp_path: Path, server: Postgres, proxy: LossyProxy) -> Iterator[ControlPlane]:
    """A Kahuna behind that proxy."""
    with control_plane(tmp_path, server.database().replace(str(server.folder), str(proxy.folder))) as made:
        yield made


def names(client: Client) -> list[str]:
    """The regions that callers see."""
    return sorted(region.name for region in client.regions.list())


def deletions(client: Client) -> list[operation_pb2.Operation]:
    """How each deletion of a machine stands."""
    return list(client.operations.list(filter='method = "DeleteInstance"'))


@pytest.mark.postgresql
@pytest.mark.parametrize("refusing", [0, 3], ids=["at once again", "away for a while"])
def test_the_caller_repeats_and_finds_what_they_did(cloud: ControlPlane, proxy: LossyProxy, refusing: int) -> None:
    cloud.region("first")
    proxy.lose("second", refusing=refusing)
    made = cloud.region("second")
    assert proxy.lost == 1
    assert names(cloud.client) == ["first", "second"]
    assert cloud.client.regions.get(made.meta.id).name == "second"


@pytest.mark.postgresql
@pytest.mark.parametrize("refusing", [0, 3], ids=["at once again", "away for a while"])
def test_the_caller_repeats_and_what_was_deleted_is_gone(cloud: ControlPlane, proxy: LossyProxy, refusing: int) -> None:
    gone = cloud.region("gone").meta.id
    proxy.lose(gone, refusing=refusing)
    begun = cloud.client.regions.begin_delete(gone)
    assert proxy.lost == 1
    assert names(cloud.client) == []
    operation = cloud.client.operations.get(begun.operation_id)
    assert (operation.method, operation.target) == ("DeleteRegion", gone)


@pytest.mark.parametrize("lingers", [False, True], ids=["row gone", "row marked"])
def test_a_repeated_deletion_changes_nothing_and_another_with_its_id_is_refused(
    tmp_path: Path, database: str, lingers: bool
) -> None:
    with control_plane(tmp_path, database) as cloud:
        site = make_site(cloud)
        host = site.connect_host()
        web = cloud.client.instances.create(site.wanted("web"))
        host.frozen = {"instance"} if lingers else set()
        delete = contract.load().kinds["Instance"].service.methods["delete"]
        request = instance_pb2.DeleteInstanceRequest(id=web.meta.id, request_id=str(uuid.uuid4()))
        first = cloud.client.call(delete, request)
        if not lingers:
            cloud.client.operations.wait(first.operation_id)
        asked = deletions(cloud.client)
        assert cloud.client.call(delete, request).operation_id == first.operation_id
        assert deletions(cloud.client) == asked
        request.etag = "another"
        with pytest.raises(errors.Conflict) as refused:
            cloud.client.call(delete, request)
        assert refused.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.postgresql
def test_what_nobody_repeats_is_seen_and_nobody_else_waits_for_it(cloud: ControlPlane, proxy: LossyProxy) -> None:
    events = cloud.client.regions.watch()
    assert next(events).change == "synced"
    proxy.lose("orphan")
    with pytest.raises(Refusal, match="may have done so"):
        cloud.loop.run(cloud.kahuna.store.run(lambda tx: tx.add("Region", region_pb2.Region(name="orphan"))))
    cloud.region("next")
    assert names(cloud.client) == ["next", "orphan"]
    seen = (event.resource.name for event in events if event.resource)
    assert [next(seen), next(seen)] == ["orphan", "next"]


@pytest.mark.postgresql
def test_a_report_that_the_database_did_not_hear_comes_again(cloud: ControlPlane, server: Postgres) -> None:
    site = make_site(cloud)
    host = FakeHost()
    host.frozen.add("instance")
    site.connect_host(host)
    begun = site.instance("web")
    with server.stopped():
        with pytest.raises(errors.Unavailable, match="database"):
            cloud.region("late")
        assert site.client.instances.get(begun.resource.meta.id).name == "web"
        with capture_logs() as logged:
            host.frozen.clear()
            until(lambda: any(line["event"] == "store.unavailable" for line in logged), what="the report")
    assert site.client.operations.wait(begun.operation_id, 20).phase == operation_pb2.PHASE_DONE
