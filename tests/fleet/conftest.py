"""Fixtures: a Kahuna, a site, and agent streams that a test plays by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kowa.v2 import instance_pb2
from tests.control_plane import ControlPlane, control_plane
from tests.fleet.manual_agent import AgentStream
from tests.fleet.reporting_host import ReportingHost
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


@pytest.fixture
def host(site: Site, dial: Dial) -> ReportingHost:
    """The host's agent, played by hand, in step."""
    return ReportingHost(site, dial(site.secret))


@pytest.fixture
def web(site: Site, host: ReportingHost) -> instance_pb2.Instance:
    """A machine that the host has stored and not reported yet."""
    started = site.add_instance("web")
    stored = 0
    while stored < 3:  # the machine, its disk, its adapter: in one batch or several
        stored += len(host.store_batch())
    return started.resource
