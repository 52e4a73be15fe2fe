"""Fixtures: a Kahuna, a site, and agent streams that a test plays by hand."""

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
    """An empty Kahuna on SQLite."""
    with control_plane(tmp_path) as plane:
        yield plane


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


Dial = Callable[..., AgentStream]


@pytest.fixture
def dial(cloud: ControlPlane) -> Iterator[Dial]:
    """Opens agent streams by hand; closes them all at the end."""
    streams: list[AgentStream] = []

    def open_stream(secret: str, *, ca: Path | None = None) -> AgentStream:
        streams.append(AgentStream(cloud, secret, ca=ca))
        return streams[-1]

    yield open_stream
    for stream in streams:
        stream.close()
