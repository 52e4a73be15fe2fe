"""What an operator tells the agent: environment variables `KIWI_...`, and a TOML file whose values they override."""

import tomllib
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class Settings(BaseSettings):
    """The agent's settings."""

    model_config = SettingsConfigDict(env_prefix="KIWI_", extra="forbid")

    server: str = Field(description="Kahuna's address for agents, host:port")
    ca: Path = Field(description="the certificates Kahuna is known by")
    token: Path = Field(description="a file with the agent's token")
    state: Path = Field(description="a directory of the agent's own, closed to others")

    @classmethod
    def load(cls, config: Path | None) -> "Settings":
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
        return env_settings, init_settings
