"""A watch never goes backwards, whatever happens to Kahuna, and says so when it can't go on."""

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
    """Keeps the regions it has heard of, and resumes where it was, as any client would."""

    def __init__(self, cloud: ControlPlane) -> None:
        self.known: dict[str, region_pb2.Region] = {}
        self.synced: list[int] = []
        self.wrong: list[str] = []
        self._client = Client(cloud.settings.api, key=cloud.key, insecure=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._watch()
            except (errors.KowaError, ValueError):
                # Kahuna is away; or the test has closed the client.
                continue

    def _watch(self) -> None:
        for event in self._client.of(region_pb2.Region).watch(revision=self.synced[-1] if self.synced else 0):
            if self.synced and event.revision < self.synced[-1]:
                self.wrong.append(f"{event.change} at {event.revision} after {self.synced[-1]}")
            match event.change:
                case "put":
                    assert event.resource is not None
                    before = self.known.get(event.id)
                    if before is not None and event.resource.meta.revision < before.meta.revision:
                        self.wrong.append(f"{event.id} went back to {event.resource.meta.revision}")
                    self.known[event.id] = event.resource
                case "removed":
                    self.known.pop(event.id, None)
                case "synced":
                    self.synced.append(event.revision)

    def close(self) -> None:
        """Ends it."""
        self._over.set()
        self._client.close()
        self._thread.join(10)


@pytest.mark.slow
def test_a_watch_goes_on_over_restarts_of_kahuna_and_ends_at_the_truth(cloud: ControlPlane) -> None:
    watcher = Watcher(cloud)
    regions = {name: cloud.region(name) for name in ("eu", "us", "asia")}
    until(lambda: len(watcher.known) == 3, what="three regions seen")
    for round_ in range(3):
        for name, region in regions.items():
            region.description = f"{name}, round {round_}"
            regions[name] = cloud.client.of(region_pb2.Region).begin_update(region, ["description"]).resource
        # Made before it is stopped, in the last moment, and deleted before it is watched again.
        short = cloud.region(f"short-lived-{round_}")
        cloud.stop()
        cloud.start()
        cloud.client.of(region_pb2.Region).delete(short.meta.id)
    truth = {region.meta.id: region for region in cloud.client.of(region_pb2.Region).list()}
    until(lambda: watcher.known == truth, what="the truth")
    watcher.close()
    assert watcher.wrong == []
    assert len(truth) == 3


@pytest.fixture
def short_log(monkeypatch: pytest.MonkeyPatch) -> int:
    """A log of few entries: how many."""
    for module in ("view", "database"):
        monkeypatch.setattr(f"kahuna.store.{module}.MAX_TAIL_CHANGES", 6)
    return 6


@pytest.mark.usefixtures("short_log")
@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
def test_a_watch_from_a_revision_that_is_forgotten_is_told_to_start_anew(tmp_path: Path, restarted: bool) -> None:
    with control_plane(tmp_path) as cloud:
        regions = cloud.client.of(region_pb2.Region)
        first = cloud.region("eu").meta.revision
        for number in range(6):
            cloud.region(f"r{number}")
        if restarted:
            cloud.stop()
            cloud.start()
            regions = cloud.client.of(region_pb2.Region)
        with pytest.raises(errors.Invalid, match=f"revision {first} is older than the log") as refused:
            next(regions.watch(revision=first))
        assert (refused.value.reason, refused.value.code) == ("REVISION_COMPACTED", "OUT_OF_RANGE")
        whole = regions.watch()
        assert [next(whole).change for _ in range(8)] == ["put"] * 7 + ["synced"]


def test_a_watch_from_a_revision_that_has_not_been_is_told_to_start_anew(cloud: ControlPlane) -> None:
    """The database was put back to an earlier day: going on from tomorrow's revision would go backwards."""
    revision = cloud.region("eu").meta.revision
    with pytest.raises(errors.Invalid, match=f"revision {revision + 5} has not been yet") as refused:
        next(cloud.client.of(region_pb2.Region).watch(revision=revision + 5))
    assert refused.value.reason == "REVISION_COMPACTED"


@pytest.mark.usefixtures("short_log")
@pytest.mark.parametrize("reload", [False, True], ids=["as it goes", "loaded"])
def test_what_the_log_can_tell_it_tells_whole(cloud: ControlPlane, tmp_path: Path, reload: bool) -> None:
    """A commit of several changes at the end of what is remembered counts as forgotten."""
    made: dict[int, set[str]] = {}
    store = Store(f"sqlite:///{tmp_path / 'log.db'}")
    migrate(store.engine)
    store.load()

    def several(number: int) -> Callable[[Transaction], list[str]]:
        return lambda tx: [
            meta(tx.add("Region", region_pb2.Region(name=f"r{number}-{index}"))).id for index in range(4)
        ]

    for number in range(5):
        ids = cloud.loop.run(store.run(several(number)))
        made[store.view.revision] = set(ids)
    if reload:
        cloud.loop.run(store.close())
        store = Store(f"sqlite:///{tmp_path / 'log.db'}")
        store.load()
    view = store.view
    for revision in range(view.oldest, view.revision + 1):
        told = {change.id for change in view.changes_since("Region", revision)}
        assert told == set().union(*(ids for at, ids in made.items() if at > revision))
    assert view.oldest < view.revision
    cloud.loop.run(store.close())
