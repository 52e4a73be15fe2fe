"""Settings of agents: a TOML file whose values the environment overrides."""

import os
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every agent must be given."""

    prefix: ClassVar[str]  # of the environment variables; behind it stands the name of a field in upper case

    server: str  # Kahuna's address for agents, host:port
    ca: Path  # the certificates Kahuna is known by
    token: Path  # a file with the agent's token
    state: Path  # a directory of the agent's own, closed to others

    @classmethod
    def load(cls, config: Path | None) -> Self:
        """The settings in force. Raises ValueError with what is wrong, or OSError for a file that can't be read."""
        given: dict[str, Any] = tomllib.loads(config.read_text()) if config else {}
        for field in cls.__struct_fields__:
            if (value := os.environ.get(cls.prefix + field.upper())) is not None:
                given[field] = msgspec.json.decode(value) if value.startswith("[") else value
        try:
            return msgspec.convert(given, cls, strict=False, dec_hook=lambda kind, value: kind(value))
        except (msgspec.MsgspecError, TypeError) as why:
            raise ValueError(str(why)) from why
