"""Settings of agents: a TOML file whose values the environment overrides."""

import argparse
import os
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

VERSION = version("kowa")  # of the agents


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every agent must be given."""

    agent: ClassVar[str]  # its name; in upper case it stands before the names of fields in environment variables

    server: str  # Kahuna's address for agents, host:port
    ca: Path  # the certificates Kahuna is known by
    token: Path  # a file with the agent's token
    state: Path  # a directory of the agent's own, closed to others

    @classmethod
    def from_command_line(cls, description: str) -> Self:
        """The settings in force. Ends the program with what is wrong."""
        parser = argparse.ArgumentParser(prog=cls.agent, description=description)
        variables = f"{cls.agent.upper()}_..."
        parser.add_argument("--config", type=Path, help=f"a TOML file; {variables} in the environment override it")
        try:
            return cls.load(parser.parse_args().config)
        except (ValueError, OSError) as why:
            parser.exit(1, f"{cls.agent}: {why}\n")

    @classmethod
    def load(cls, config: Path | None) -> Self:
        """The settings in force, with absolute paths.

        Raises ValueError with what is wrong, or OSError for a file that can't be read.
        """
        given: dict[str, Any] = tomllib.loads(config.read_text()) if config else {}
        for field in cls.__struct_fields__:
            if (value := os.environ.get(f"{cls.agent}_{field}".upper())) is not None:
                given[field] = msgspec.json.decode(value) if value.startswith("[") else value
        try:
            return msgspec.convert(given, cls, strict=False, dec_hook=lambda _, path: Path(path).absolute())
        except (msgspec.MsgspecError, TypeError) as why:
            raise ValueError(str(why)) from why
