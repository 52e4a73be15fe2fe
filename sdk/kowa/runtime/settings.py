"""Configuration of our programs: a TOML file whose values the environment overrides."""

import tomllib
from pathlib import Path
from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class FileSettings(BaseSettings):
    """Settings from a file and the environment; what neither knows is refused by name."""

    @classmethod
    def load(cls, config: Path | None) -> Self:
        """The settings in force. Raises ValidationError, or OSError for a named file that can't be read."""
        return cls(**(tomllib.loads(config.read_text()) if config else {}))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes over what `load` has read."""
        return env_settings, init_settings


class AgentSettings(FileSettings):
    """What every agent must be given."""

    server: str = Field(description="Kahuna's address for agents, host:port")
    ca: Path = Field(description="the certificates Kahuna is known by")
    token: Path = Field(description="a file with the agent's token")
    state: Path = Field(description="a directory of the agent's own, closed to others")
