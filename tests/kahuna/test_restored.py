"""`kahuna restored`, after a restore of the database: no agent keeps changes that the database has lost."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from kahuna.main import main
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, meta_pb2, vnet_pb2
from tests.control_plane import ControlPlane, FakeWorker
from tests.fleet_resources import content
from tests.site import Site, make_site
from tests.waiting import until


class Backup:
    """A copy of a control plane's database, taken while Kahuna is stopped."""

    def __init__(self, cloud: ControlPlane) -> None:
        self._cloud = cloud
        self._copy("", "-backup")

    def restore(self) -> None:
        """Replaces the database with the copy."""
        self._copy("-backup", "")

    def _copy(self, source: str, target: str) -> None:
        if not self._cloud.settings.database:
            file = self._cloud.folder / "kahuna.db"
            shutil.copy(f"{file}{source}", f"{file}{target}")
            return
        url = make_url(self._cloud.settings.database)
        engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{url.database}{target}"'))
            connection.execute(text(f'CREATE DATABASE "{url.database}{target}" TEMPLATE "{url.database}{source}"'))
        engine.dispose()


def kahuna(cloud: ControlPlane, command: str) -> None:
    """Runs a kahuna command with the control plane's configuration."""
    config = cloud.folder / "kahuna.toml"
    config.write_text(f'state = "{cloud.folder}"\ndatabase = "{cloud.settings.database}"\n')
    main(["--config", str(config), command])


def describe(site: Site, description: str) -> vnet_pb2.Vnet:
    """Changes the vnet, which the host holds."""
    changed = vnet_pb2.Vnet(meta=meta_pb2.Meta(id=site.vnet.meta.id), description=description)
    return site.client.of(vnet_pb2.Vnet).begin_update(changed, ["description"]).resource


def in_step(site: Site) -> bool:
    """Whether the agent has acked the latest change."""
    status = site.client.agents.get(site.agent.meta.id).status
    changed = site.client.vnets.get(site.vnet.meta.id).meta.revision
    return bool(status.stream == agent_pb2.STREAM_ONLINE and status.held_revision >= changed)


class RecordingWorker(FakeWorker):
    """Records the objects it has to destroy."""

    def __init__(self) -> None:
        super().__init__()
        self.destroyed: list[str] = []

    def _report(self, described: fleet_pb2.Object) -> fleet_pb2.Report:
        if described.gone:
            self.destroyed.append(described.id)
        return super()._report(described)


@pytest.mark.slow
@pytest.mark.parametrize(("announced", "description"), [(False, "lost with the database"), (True, "wanted since")])
def test_agents_get_their_slice_again_after_a_restore_was_announced(
    cloud: ControlPlane, announced: bool, description: str
) -> None:
    """Both changes have generation 2: unless the restore is announced, the agent seems to be in step."""
    site = make_site(cloud)
    cloud.stop()
    backup = Backup(cloud)
    cloud.start()
    host = RecordingWorker()
    agent = cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    assert describe(site, "lost with the database").meta.generation == 2
    until(lambda: in_step(site), what="the lost change at its host")
    instance = site.client.instances.create(site.wanted("created-since"))
    cloud.disconnect(agent)
    cloud.stop()

    backup.restore()
    if announced:
        kahuna(cloud, "restored")
    cloud.start()
    assert describe(site, "wanted since").meta.generation == 2
    host = RecordingWorker()
    cloud.dial(site.secret, host)
    until(lambda: in_step(site), what="an agent in step")
    assert content(host.wanted[site.vnet.meta.id]).description == description
    assert instance.meta.id not in host.wanted
    assert host.destroyed == []


def test_announcing_a_restore_starts_a_new_incarnation_and_is_in_the_audit_trail(
    cloud: ControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    region = cloud.add_region()
    before = cloud.kahuna.store.view.incarnation
    cloud.stop()
    capsys.readouterr()
    kahuna(cloud, "restored")
    assert capsys.readouterr().out == (
        "The store has a new incarnation at revision 1: "
        "once Kahuna serves, each agent is sent its whole slice; nothing on its host is touched.\n"
    )
    kahuna(cloud, "audit")
    assert '"caller": "console", "method": "restored"' in capsys.readouterr().out
    cloud.start()
    assert cloud.kahuna.store.view.incarnation != before
    assert [found.meta.id for found in cloud.client.regions.list()] == [region.meta.id]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_announcing_a_restore_is_refused_while_kahuna_runs(cloud: ControlPlane) -> None:
    before = cloud.kahuna.store.view.incarnation
    with pytest.raises(SystemExit, match="another Kahuna uses"):
        kahuna(cloud, "restored")
    cloud.stop()
    cloud.start()
    assert cloud.kahuna.store.view.incarnation == before


def test_announcing_a_restore_of_an_unused_database_is_refused(tmp_path: Path, database: str) -> None:
    config = tmp_path / "kahuna.toml"
    config.write_text(f'state = "{tmp_path}"\ndatabase = "{database}"\n')
    with pytest.raises(SystemExit, match="is this the configuration that Kahuna runs with"):
        main(["--config", str(config), "restored"])


def test_the_help_explains_when_to_announce_a_restore(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "restored from a backup, with Kahuna" in " ".join(capsys.readouterr().out.split())
