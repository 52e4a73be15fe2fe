"""A watch never goes backwards, also over restarts of Kahuna, and fails with a reason when it can't go on."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kahuna.store.database import Store
from kahuna.store.resource import meta
from kahuna.store.schema import migrate
from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.client import Client
from kowa.v2 import region_pb2
from tests.control_plane import ControlPlane, control_plane
from tests.waiting import until


class Watcher:
    """Keeps the regions it has received, and resumes at the last revision, as any client would."""

    def __init__(self, cloud: ControlPlane) -> None:
        self.known: dict[str, region_pb2.Region] = {}
        self.synced: list[int] = []
        self.errors: list[str] = []
        self._client = Client(cloud.settings.api, key=cloud.key, insecure=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._watch()
            except (errors.KowaError, ValueError):
                # Kahuna is unreachable, or the test has closed the client.
                continue

    def _watch(self) -> None:
        for event in self._client.of(region_pb2.Region).watch(revision=self.synced[-1] if self.synced else 0):
            if self.synced and event.revision < self.synced[-1]:
                self.errors.append(f"{event.change} at {event.revision} after {self.synced[-1]}")
            match event.change:
                case "put":
                    assert event.resource is not None
                    before = self.known.get(event.id)
                    if before is not None and event.resource.meta.revision < before.meta.revision:
                        self.errors.append(f"{event.id} went back to {event.resource.meta.revision}")
                    self.known[event.id] = event.resource
                case "removed":
                    self.known.pop(event.id, None)
                case "synced":
                    self.synced.append(event.revision)

    def close(self) -> None:
        """Ends the watch."""
        self._over.set()
        self._client.close()
        self._thread.join(10)


@pytest.mark.slow
def test_a_watch_resumes_after_restarts_of_kahuna_and_ends_with_the_current_regions(cloud: ControlPlane) -> None:
    watcher = Watcher(cloud)
    regions = {name: cloud.add_region(name) for name in ("eu", "us", "asia")}
    until(lambda: len(watcher.known) == 3, what="three regions seen")
    for round_ in range(3):
        for name, region in regions.items():
            region.description = f"{name}, round {round_}"
            regions[name] = cloud.client.of(region_pb2.Region).begin_update(region, ["description"]).resource
        # Created just before the stop, and deleted before the watch resumes.
        short = cloud.add_region(f"short-lived-{round_}")
        cloud.stop()
        cloud.start()
        cloud.client.of(region_pb2.Region).delete(short.meta.id)
    current = {region.meta.id: region for region in cloud.client.of(region_pb2.Region).list()}
    until(lambda: watcher.known == current, what="the current regions")
    watcher.close()
    assert watcher.errors == []
    assert len(current) == 3


@pytest.fixture
def short_log(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shortens the log; returns its number of entries."""
    for module in ("view", "database"):
        monkeypatch.setattr(f"kahuna.store.{module}.MAX_TAIL_CHANGES", 6)
    return 6


@pytest.mark.usefixtures("short_log")
@pytest.mark.parametrize("restarted", [False, True], ids=["without a restart", "after a restart"])
def test_a_watch_from_a_revision_older_than_the_log_has_to_start_again(tmp_path: Path, restarted: bool) -> None:
    with control_plane(tmp_path) as cloud:
        regions = cloud.client.of(region_pb2.Region)
        first = cloud.add_region("eu").meta.revision
        for number in range(6):
            cloud.add_region(f"r{number}")
        if restarted:
            cloud.stop()
            cloud.start()
            regions = cloud.client.of(region_pb2.Region)
        with pytest.raises(errors.Invalid, match=f"revision {first} is older than the log") as refused:
            next(regions.watch(revision=first))
        assert (refused.value.reason, refused.value.code) == ("REVISION_COMPACTED", "OUT_OF_RANGE")
        whole = regions.watch()
        assert [next(whole).change for _ in range(8)] == ["put"] * 7 + ["synced"]


def test_a_watch_from_a_future_revision_has_to_start_again(cloud: ControlPlane) -> None:
    """After a restore of the database, going on from a later revision would go backwards."""
    revision = cloud.add_region("eu").meta.revision
    with pytest.raises(errors.Invalid, match=f"revision {revision + 5} has not been yet") as refused:
        next(cloud.client.of(region_pb2.Region).watch(revision=revision + 5))
    assert refused.value.reason == "REVISION_COMPACTED"


@pytest.mark.usefixtures("short_log")
@pytest.mark.parametrize("reload", [False, True], ids=["in memory", "loaded"])
def test_the_log_returns_all_changes_since_each_of_its_revisions(
    cloud: ControlPlane, tmp_path: Path, reload: bool
) -> None:
    """A commit of several changes that is only partly in the log counts as older than the log."""
    ids_by_revision: dict[int, set[str]] = {}
    store = Store(f"sqlite:///{tmp_path / 'log.db'}")
    migrate(store.engine)
    store.load()

    def several(number: int) -> Callable[[Transaction], list[str]]:
        return lambda tx: [
            meta(tx.add("Region", region_pb2.Region(name=f"r{number}-{index}"))).id for index in range(4)
        ]

    for number in range(5):
        ids = cloud.loop.run(store.run(several(number)))
        ids_by_revision[store.view.revision] = set(ids)
    if reload:
        cloud.loop.run(store.close())
        store = Store(f"sqlite:///{tmp_path / 'log.db'}")
        store.load()
    view = store.view
    for revision in range(view.oldest, view.revision + 1):
        found = {change.id for change in view.changes_since("Region", revision)}
        assert found == set().union(*(ids for committed_at, ids in ids_by_revision.items() if committed_at > revision))
    assert view.oldest < view.revision
    cloud.loop.run(store.close())
