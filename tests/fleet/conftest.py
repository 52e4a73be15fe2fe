"""A Kahuna, a site, and agents that dial in, for real or by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control_plane import ControlPlane, control_plane
from tests.fleet.manual_agent import AgentStream
from tests.kahuna.conftest import server
from tests.site import Site, make_site

__all__ = ["server"]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ControlPlane]:
    """A Kahuna, empty, on SQLite."""
    with control_plane(tmp_path) as made:
        yield made


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not dialled in."""
    return make_site(cloud)


Dial = Callable[..., AgentStream]


@pytest.fixture
def dial(cloud: ControlPlane) -> Iterator[Dial]:
    """Opens lines by hand, and hangs them all up."""
    lines: list[AgentStream] = []

    def open_line(secret: str, *, ca: Path | None = None) -> AgentStream:
        lines.append(AgentStream(cloud, secret, ca=ca))
        return lines[-1]

    yield open_line
    for line in lines:
        line.close()
