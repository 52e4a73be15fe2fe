"""Kahuna's configuration: a TOML file, and the environment over it (KAHUNA_DATABASE, ...)."""

import ipaddress
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, field_validator


class Settings(BaseModel, extra="forbid"):
    """Where Kahuna listens and what it stands on."""

    # What only Kahuna may read: the secret that keys are hashed with, the platform's own CA, SQLite's file.
    state: Path = Path("/var/lib/kahuna")
    # SQLAlchemy URL; SQLite below `state` unless told: postgresql+psycopg://user@host/name
    database: str = ""
    # The API for the gateway beside it: plain gRPC, loopback only.
    api: str = "127.0.0.1:7440"
    # The API for direct gRPC clients over TLS; off unless told.
    api_tls: str = ""
    # Where agents dial in, over TLS.
    fleet: str = "0.0.0.0:7443"
    # Prometheus, loopback only; off when empty.
    metrics: str = "127.0.0.1:7441"
    # The names and addresses that the server's certificate is for.
    names: list[str] = ["localhost", "127.0.0.1"]
    log_json: bool = True

    @classmethod
    def load(cls, config: Path | None) -> Self:
        """The settings in force. Raises ValueError with what is wrong, or OSError for a file that can't be read."""
        given: dict[str, Any] = tomllib.loads(config.read_text()) if config else {}
        for name in cls.model_fields:
            if (value := os.environ.get(f"KAHUNA_{name.upper()}")) is not None:
                given[name] = json.loads(value) if name == "names" else value
        return cls(**given)

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
        """The URL in force."""
        return self.database or f"sqlite:///{self.state / 'kahuna.db'}"
