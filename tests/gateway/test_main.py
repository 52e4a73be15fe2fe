"""The gateway's command line and configuration check."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 60.0


def run_gateway(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a gateway that is expected to exit with an error."""
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


REFUSALS = [
    ("", "nothing to listen on: give --listen with --certificate and --key, or --plain"),
    ("--listen 127.0.0.1:8443", "--listen serves TLS and needs --certificate and --key"),
    ("--plain 0.0.0.0:8080", "the plain listener must be on a loopback address, not 0.0.0.0"),
    ("--plain 127.0.0.1:8080 --admin 0.0.0.0:9901", "the admin interface must be on a loopback address"),
    ("--plain nonsense", "'nonsense' is not host:port"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_invalid_options_are_refused(arguments: str, message: str, tmp_path: Path) -> None:
    refused = run_gateway(*arguments.split(), "--run-dir", str(tmp_path / "run"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"gateway: {message}")


def test_options_come_from_the_environment(tmp_path: Path) -> None:
    refused = run_gateway("--run-dir", str(tmp_path), GATEWAY_PLAIN="nonsense")
    assert "'nonsense' is not host:port" in refused.stderr


@pytest.mark.gateway
def test_envoy_checks_the_configuration(tmp_path: Path) -> None:
    run = tmp_path / "run"
    files = ("--certificate", str(tmp_path / "no.crt"), "--key", str(tmp_path / "no.key"))
    refused = run_gateway("--listen", "127.0.0.1:1", *files, "--run-dir", str(run))
    assert refused.stderr.startswith("gateway: Envoy refuses the configuration: ")
    assert str(tmp_path / "no.") in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
