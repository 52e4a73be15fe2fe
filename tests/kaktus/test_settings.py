"""The agent's settings."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_kaktus.settings import Settings
from agent_kaktus.storage.source import Sources
from kowa.runtime.errors import PermanentFailure

from .hosts import REPOSITORY

FILE = """
servers = ["kahuna:8443"]
ca = "/etc/kaktus/ca.pem"
token = "/etc/kaktus/token"
state = "/var/lib/kaktus"
pools = "/srv/pools"
import_hosts = ["mirror.lan", "10.0.0.0/8", "fd00::1"]
hold_gateway = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kaktus.toml"
    path.write_text(FILE)
    return path


def test_settings_are_read_from_a_file(config: Path) -> None:
    settings = Settings.load(config)
    assert settings.instances == Path("/srv/machines")
    assert settings.hold_gateway
    sources = Sources(hosts=settings.import_hosts)
    for host, address in (("Mirror.lan", "192.168.0.1"), ("a", "10.9.8.7"), ("a", "fd00::1")):
        assert sources.choose_address(host, [address]) == address
    for host, address in (("other.lan", "192.168.0.1"), ("a", "fd00::2")):
        with pytest.raises(PermanentFailure, match="no public address"):
            sources.choose_address(host, [address])


def test_the_environment_overrides_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAKTUS_ACCELERATOR", "qemu")
    monkeypatch.setenv("KAKTUS_SERVERS", '["other:8443", "third:8443"]')
    settings = Settings.load(config)
    assert (settings.servers, settings.accelerator) == (("other:8443", "third:8443"), "qemu")


def test_the_one_address_of_older_settings_still_counts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(FILE.replace('servers = ["kahuna:8443"]', 'server = "older:8443"'))
    assert Settings.load(config).servers == ("older:8443",)
    monkeypatch.setenv("KAKTUS_SERVER", "[fd00::1]:8443")
    assert Settings.load(config).servers == ("[fd00::1]:8443",)


def test_a_malformed_list_in_the_environment_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAKTUS_SERVERS", "[fd00::1]:8443")
    with pytest.raises(ValueError, match="JSON is malformed"):
        Settings.load(config)


def test_an_unknown_setting_is_refused_by_name(config: Path) -> None:
    config.write_text(FILE + "hold_gatway = true\n")
    with pytest.raises(ValueError, match="hold_gatway"):
        Settings.load(config)


def test_a_wrong_setting_ends_the_agent_with_the_reason(config: Path) -> None:
    config.write_text(FILE + "hold_gatway = true\n")
    result = run("-m", "agent_kaktus.main", "--config", str(config))
    assert result.returncode == 1
    assert "hold_gatway" in result.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
