"""Settings of an agent that is never started."""

from pathlib import Path
from typing import Any

from agent_kaktus.settings import Settings

NOWHERE = Path("/nowhere")


def settings_of(pools: Path, instances: Path, **others: Any) -> Settings:
    """Settings with these folders; all else that plans and steps don't depend on leads nowhere."""
    return Settings(servers=(), ca=NOWHERE, token=NOWHERE, state=NOWHERE, pools=pools, machines=instances, **others)
