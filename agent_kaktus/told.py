"""What the agent is started with, as values: its settings without what reads and checks them."""

from dataclasses import dataclass
from pathlib import Path

from agent_kaktus.site import Site
from agent_kaktus.storage.source import Sources


@dataclass(frozen=True, slots=True)
class Told:
    """What an operator has told, and the version of the program."""

    version: str
    server: str
    ca: Path
    token: Path
    state: Path
    site: Site
    sources: Sources
    libvirt_uri: str
