"""Starting the gateway."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 60.0


def gateway(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What comes of a command line that can't be served."""
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


REFUSALS = [
    ("", "nothing to listen on: give --listen with --certificate and --key, or --plain"),
    ("--listen 127.0.0.1:8443", "--listen serves TLS and needs --certificate and --key"),
    ("--plain 0.0.0.0:8080", "the plain listener must be on a loopback address, not 0.0.0.0"),
    ("--plain 127.0.0.1:8080 --admin 0.0.0.0:9901", "the admin interface must be on a loopback address"),
    ("--plain nonsense", "'nonsense' is not host:port"),
]


@pytest.mark.parametrize(("typed", "says"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_what_can_not_be_served_is_refused(typed: str, says: str, tmp_path: Path) -> None:
    refused = gateway(*typed.split(), "--run-dir", str(tmp_path / "run"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"gateway: {says}")


def test_options_come_from_the_environment(tmp_path: Path) -> None:
    refused = gateway("--run-dir", str(tmp_path), GATEWAY_PLAIN="nonsense")
    assert "'nonsense' is not host:port" in refused.stderr


@pytest.mark.gateway
def test_envoy_checks_what_it_is_given(tmp_path: Path) -> None:
    run = tmp_path / "run"
    files = ("--certificate", str(tmp_path / "no.crt"), "--key", str(tmp_path / "no.key"))
    refused = gateway("--listen", "127.0.0.1:1", *files, "--run-dir", str(run))
    assert refused.stderr.startswith("gateway: Envoy refuses the configuration: ")
    assert str(tmp_path / "no.") in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
