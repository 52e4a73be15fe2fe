"""The agent's settings: environment variables `KIWI_...`, and a TOML file whose values they override."""

from pydantic_settings import SettingsConfigDict

from kowa.runtime.settings import AgentSettings


class Settings(AgentSettings):
    """The agent's settings."""

    model_config = SettingsConfigDict(env_prefix="KIWI_", extra="forbid")
