"""Commits whose response is lost: no caller waits for ever, and nothing is done twice."""

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
from tests.control_plane import ControlPlane, FakeWorker, control_plane
from tests.lossy_proxy import LossyProxy
from tests.postgres import Postgres
from tests.site import make_site
from tests.waiting import until


@pytest.fixture
def proxy(server: Postgres) -> Iterator[LossyProxy]:
    """A proxy between Kahuna and the database."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        lossy = LossyProxy(server.folder, Path(folder))
        yield lossy
        lossy.close()


@pytest.fixture
def cloud(tmp_path: Path, server: Postgres, proxy: LossyProxy) -> Iterator[ControlPlane]:
    """A Kahuna behind the proxy."""
    with control_plane(tmp_path, server.database().replace(str(server.folder), str(proxy.folder))) as cloud:
        yield cloud


def names(client: Client) -> list[str]:
    """The names of the regions that callers see."""
    return sorted(region.name for region in client.regions.list())


def deletions(client: Client) -> list[operation_pb2.Operation]:
    """The operations that delete instances."""
    return list(client.operations.list(filter='method = "DeleteInstance"'))


@pytest.mark.postgresql
@pytest.mark.parametrize("refusing", [0, 3], ids=["reconnects at once", "unreachable for a while"])
def test_a_create_whose_response_was_lost_is_repeated_and_done_once(
    cloud: ControlPlane, proxy: LossyProxy, refusing: int
) -> None:
    cloud.add_region("first")
    proxy.lose("second", refusing=refusing)
    region = cloud.add_region("second")
    assert proxy.lost == 1
    assert names(cloud.client) == ["first", "second"]
    assert cloud.client.regions.get(region.meta.id).name == "second"


@pytest.mark.postgresql
@pytest.mark.parametrize("refusing", [0, 3], ids=["reconnects at once", "unreachable for a while"])
def test_a_deletion_whose_response_was_lost_is_repeated_and_done_once(
    cloud: ControlPlane, proxy: LossyProxy, refusing: int
) -> None:
    gone = cloud.add_region("gone").meta.id
    proxy.lose(gone, refusing=refusing)
    started = cloud.client.regions.begin_delete(gone)
    assert proxy.lost == 1
    assert names(cloud.client) == []
    operation = cloud.client.operations.get(started.operation_id)
    assert (operation.method, operation.target) == ("DeleteRegion", gone)


@pytest.mark.parametrize("row_remains", [False, True], ids=["row deleted", "row marked"])
def test_a_repeated_deletion_changes_nothing_and_another_with_its_id_is_refused(
    tmp_path: Path, database: str, row_remains: bool
) -> None:
    with control_plane(tmp_path, database) as cloud:
        site = make_site(cloud)
        host = site.connect_host()
        web = cloud.client.instances.create(site.wanted("web"))
        host.frozen = {"instance"} if row_remains else set()
        delete = contract.load().kinds["Instance"].service.methods["delete"]
        request = instance_pb2.DeleteInstanceRequest(id=web.meta.id, request_id=str(uuid.uuid4()))
        first = cloud.client.call(delete, request)
        if not row_remains:
            cloud.client.operations.wait(first.operation_id)
        before = deletions(cloud.client)
        assert cloud.client.call(delete, request).operation_id == first.operation_id
        assert deletions(cloud.client) == before
        request.etag = "another"
        with pytest.raises(errors.Conflict) as refused:
            cloud.client.call(delete, request)
        assert refused.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.postgresql
def test_a_lost_commit_that_is_not_repeated_is_visible_and_blocks_no_other_change(
    cloud: ControlPlane, proxy: LossyProxy
) -> None:
    events = cloud.client.regions.watch()
    assert next(events).change == "synced"
    proxy.lose("orphan")
    with pytest.raises(Refusal, match="may have done so"):
        cloud.loop.run(cloud.kahuna.store.run(lambda tx: tx.add("Region", region_pb2.Region(name="orphan"))))
    cloud.add_region("next")
    assert names(cloud.client) == ["next", "orphan"]
    names_seen = (event.resource.name for event in events if event.resource)
    assert [next(names_seen), next(names_seen)] == ["orphan", "next"]


@pytest.mark.postgresql
def test_a_report_is_stored_again_after_an_outage_of_the_database(cloud: ControlPlane, server: Postgres) -> None:
    site = make_site(cloud)
    host = FakeWorker()
    host.frozen.add("instance")
    site.connect_host(host)
    started = site.add_instance("web")
    with server.stopped():
        with pytest.raises(errors.Unavailable, match="database"):
            cloud.add_region("late")
        assert site.client.instances.get(started.resource.meta.id).name == "web"
        with capture_logs() as logged:
            host.frozen.clear()
            until(lambda: any(entry["event"] == "store.unavailable" for entry in logged), what="the failed report")
    assert site.client.operations.wait(started.operation_id, 20).phase == operation_pb2.PHASE_DONE
