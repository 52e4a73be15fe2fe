"""Settings of agents: a TOML file whose values the environment overrides."""

import argparse
import os
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from kowa.runtime.addresses import is_address

VERSION = version("kowa")  # of the agents


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of every agent."""

    agent: ClassVar[str]  # its name; in upper case the prefix of its environment variables

    # Kahuna's addresses for agents, each host:port. They are tried in turn; the last good one is kept, also after a
    # restart. One that is wrong, or does not answer, only makes way for the next.
    servers: tuple[str, ...]
    ca: Path  # a file with the CA certificates that sign Kahuna's
    token: Path  # a file with the agent's token
    state: Path  # a directory of the agent, private to it

    @classmethod
    def from_command_line(cls, description: str) -> Self:
        """Loads the settings that the command line names. On an error, ends the program with the problem."""
        parser = argparse.ArgumentParser(prog=cls.agent, description=description)
        variables = f"{cls.agent.upper()}_..."
        parser.add_argument("--config", type=Path, help=f"a TOML file; {variables} in the environment override it")
        try:
            return cls.load(parser.parse_args().config)
        except (ValueError, OSError) as error:
            parser.exit(1, f"{cls.agent}: {error}\n")

    @classmethod
    def load(cls, config: Path | None) -> Self:
        """Loads the settings from a file and the environment; paths become absolute.

        Raises ValueError with the problem, or OSError for a file that can't be read.
        """
        given: dict[str, Any] = tomllib.loads(config.read_text()) if config else {}
        try:
            for field in ("server", *cls.__struct_fields__):
                if (value := os.environ.get(f"{cls.agent}_{field}".upper())) is not None:
                    is_list = value.startswith("[") and field != "server"  # not the address [fd00::1]:7443
                    given[field] = msgspec.json.decode(value) if is_list else value
            if "server" in given:  # the name of the setting when it was one address
                given.setdefault("servers", [given.pop("server")])
            settings = msgspec.convert(given, cls, strict=False, dec_hook=lambda _, path: Path(path).absolute())
        except (msgspec.MsgspecError, TypeError) as error:
            raise ValueError(str(error)) from error
        if not any(map(is_address, settings.servers)):
            example = 'servers = ["kahuna.example.net:7443"]'
            raise ValueError(f"servers: none of {list(settings.servers)} is an address, host:port; write {example}")
        return settings
