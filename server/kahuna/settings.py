"""Kahuna's configuration: a TOML file, overridden by the environment (KAHUNA_DATABASE, ...)."""

import ipaddress
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, field_validator


class Settings(BaseModel, extra="forbid"):
    """The addresses that Kahuna listens on, its state and its database."""

    state: Path = Path("/var/lib/kahuna")  # readable by Kahuna only: the secret for key hashes, the CA, SQLite's file
    database: str = ""  # default: SQLite in `state`; or, for example, postgresql+psycopg://user@host/name
    api: str = "127.0.0.1:7440"  # for the gateway on this host: plain gRPC, loopback only
    api_tls: str = ""  # for gRPC clients over TLS; default: off
    fleet: str = "0.0.0.0:7443"  # for agents, over TLS
    metrics: str = "127.0.0.1:7441"  # Prometheus, loopback only; off when empty
    names: list[str] = ["localhost", "127.0.0.1"]  # names and addresses in the server's certificate
    log_json: bool = True

    @classmethod
    def load(cls, config: Path | None) -> Self:
        """Loads the settings. Raises ValueError with what is wrong, or OSError for a file that can't be read."""
        values: dict[str, Any] = tomllib.loads(config.read_text()) if config else {}
        for name in cls.model_fields:
            if (value := os.environ.get(f"KAHUNA_{name.upper()}")) is not None:
                try:
                    values[name] = json.loads(value) if name == "names" else value
                except ValueError as error:
                    remedy = 'write a JSON list such as ["kahuna.example.net", "10.0.0.1"]'
                    raise ValueError(f"KAHUNA_{name.upper()} can't be read: {error}; {remedy}") from error
        return cls(**values)

    @field_validator("api", "metrics")
    @classmethod
    def _is_loopback(cls, value: str) -> str:
        host = value.rpartition(":")[0].strip("[]")
        if value and host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(
                f"{value} is reachable from outside, and what listens there is not encrypted; use 127.0.0.1"
            )
        return value

    @property
    def database_url(self) -> str:
        """The URL of the database."""
        return self.database or f"sqlite:///{self.state / 'kahuna.db'}"
