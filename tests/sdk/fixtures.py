"""Fixtures for clients: `kahuna` is a real Kahuna; modules that test faults override it with `fake_kahuna`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import pytest
import structlog

from kowa.v2.instance_pb2 import Instance
from kowa.v2.project_pb2 import Project
from kowa.v2.storage_pool_pb2 import STORAGE_DRIVER_DIR, StoragePool
from kowa.v2.volume_pb2 import Volume
from tests.control_plane import GIB, ControlPlane, FakeWorker, control_plane
from tests.fake_kahuna import fake_kahuna
from tests.waiting import until

__all__ = ["cloud", "fake_kahuna", "first", "kahuna", "wanted_instance"]

TIMEOUT_S = 60.0
T = TypeVar("T")


def first(count: int, events: Iterator[T], *, timeout: float = TIMEOUT_S) -> list[T]:
    """The first `count` events of a stream. Raises TimeoutError when they do not come in time."""
    reader = ThreadPoolExecutor(1)
    try:
        return reader.submit(lambda: list(islice(events, count))).result(timeout)
    finally:
        reader.shutdown(wait=False)  # a reader that hangs ends with the client


@dataclass(frozen=True)
class Kahuna:
    """A Kahuna's endpoint and admin key."""

    endpoint: str
    key: str


@pytest.fixture
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An empty, real Kahuna without logs, which would mix with kowactl's output."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with control_plane(tmp_path_factory.mktemp("kahuna")) as cloud:
        yield cloud
    structlog.reset_defaults()


@pytest.fixture
def kahuna(cloud: ControlPlane) -> Kahuna:
    """The real Kahuna's endpoint and key."""
    return Kahuna(cloud.settings.api, cloud.key)


@pytest.fixture
def wanted_instance(cloud: ControlPlane) -> Instance:
    """The instance web to create; its project shop, zone eu/a, host and volume os exist."""
    eu, us = cloud.add_region("eu"), cloud.add_region("us")
    zone, _ = cloud.add_zone(eu, "a"), cloud.add_zone(us, "a")
    agent, secret = cloud.add_agent()
    host = cloud.add_host(zone, agent=agent.meta.id)
    cloud.dial(secret, FakeWorker())
    until(lambda: cloud.client.kaktuses.get(host.meta.id).status.memory, what="the host's capacity")
    pool = StoragePool(region=eu.meta.id, name="disks", driver=STORAGE_DRIVER_DIR, kaktus=host.meta.id)
    pool = cloud.client.storage_pools.create(pool)
    project = cloud.client.projects.create(Project(name="shop"))
    volume = Volume(project=project.meta.id, name="os", storage_pool=pool.meta.id, size=8 * GIB)
    volume = cloud.client.volumes.create(volume)
    return Instance(
        project=project.meta.id, name="web", zone=zone.meta.id, vcpus=1, memory=GIB, volumes=[volume.meta.id]
    )
