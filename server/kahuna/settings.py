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

    state: Path = Path("/var/lib/kahuna")  # for Kahuna alone: what keys are hashed with, its CA, SQLite's file
    database: str = ""  # SQLite below `state` or, for example, postgresql+psycopg://user@host/name
    api: str = "127.0.0.1:7440"  # for the gateway beside it: plain gRPC, loopback only
    api_tls: str = ""  # for gRPC clients over TLS; off by default
    fleet: str = "0.0.0.0:7443"  # where agents dial in, over TLS
    metrics: str = "127.0.0.1:7441"  # Prometheus, loopback only; off when empty
    names: list[str] = ["localhost", "127.0.0.1"]  # and addresses that the server's certificate is for
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
