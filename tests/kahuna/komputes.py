"""Komputes to create, their parts, and the changes they cause."""

from collections.abc import Callable
from typing import Any

from kahuna.store.transaction import Transaction
from kowa import contract
from kowa.v2 import (
    kompute_pb2,
)
from tests.control_plane import GIB
from tests.site import Site
from tests.waiting import until

PARTS = ("instances", "volumes", "adapters")


def adapter(site: Site, subnet: str = "", address: str = "") -> kompute_pb2.Kompute.Adapter:
    """An adapter; default: in the site's subnet."""
    return kompute_pb2.Kompute.Adapter(subnet=subnet or site.subnet.meta.id, address=address)


def wanted(site: Site, name: str = "web", **changes: Any) -> kompute_pb2.Kompute:
    """A kompute to create, with two disks and two adapters."""
    fields: dict[str, Any] = {
        "project": site.project.meta.id,
        "name": name,
        "zone": site.zone.meta.id,
        "vcpus": 1,
        "memory": GIB,
        "template": site.template.meta.id,
        "disk": GIB,
        "data_disk": 2 * GIB,
        "adapters": [adapter(site), adapter(site, address="10.20.0.9")],
    }
    return kompute_pb2.Kompute(**fields | changes)


def parts(site: Site) -> dict[str, Any]:
    """All instances, volumes and adapters, by name."""
    found = {part.name: part for kind in PARTS for part in getattr(site.cloud.client, kind).list()}
    return dict(sorted(found.items()))


def run_in_kahuna(site: Site, work: Callable[[Transaction], Any]) -> Any:
    """Runs a transaction inside Kahuna."""
    return site.cloud.loop.run(site.cloud.kahuna.store.run(work))


def wait_until_idle(site: Site) -> int:
    """Waits until no operation runs; returns the revision."""
    running = "phase = PHASE_RUNNING"
    until(lambda: not list(site.cloud.client.operations.list(filter=running)), what="no running operation")
    return site.cloud.kahuna.store.view.revision


def kinds_changed_since(site: Site, revision: int) -> list[str]:
    """The kind of each change since the revision, without agents, whose acks may still come."""
    view = site.cloud.kahuna.store.view
    return [kind for kind in contract.load().kinds if kind != "Agent" for _ in view.changes_since(kind, revision)]
