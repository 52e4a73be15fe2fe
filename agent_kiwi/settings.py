"""The agent's settings: environment variables `KIWI_...`, and a TOML file whose values they override."""

from kowa.runtime.settings import AgentSettings


class Settings(AgentSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's settings."""

    prefix = "KIWI_"
