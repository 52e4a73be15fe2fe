"""Scopes: everywhere in the API, a resource hidden from the caller is answered like one that does not exist."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from kahuna.api import server
from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.v2 import adapter_pb2, operation_pb2, volume_pb2
from tests.control_plane import GIB, ControlPlane
from tests.site import Site, make_site
from tests.waiting import until


class HidingScope:
    """A scope that hides one project with its resources."""

    def __init__(self) -> None:
        self.hidden = ""

    def sees(self, kind: str, resource: Message) -> bool:
        """Whether a resource does not belong to the hidden project."""
        owner, own = getattr(resource, "project", None), resource.meta.id  # type: ignore[attr-defined]
        return not self.hidden or self.hidden not in (owner, own)


@pytest.fixture
def scope(monkeypatch: pytest.MonkeyPatch) -> HidingScope:
    """The scope of all callers; it hides nothing until a test sets `hidden`."""
    hiding = HidingScope()
    monkeypatch.setattr(server, "scope_of", lambda identity: hiding)
    return hiding


@pytest.fixture
def site(scope: HidingScope, cloud: ControlPlane) -> Iterator[Site]:
    """A site whose project shop, with its instance web, is hidden."""
    site = make_site(cloud)
    site.connect_host()
    cloud.client.instances.create(site.wanted("web"))
    site.add_volume("free")
    ids = {kind: next(iter(getattr(cloud.client, kind).list())).meta.id for kind in ("instances", "adapters")}
    site.hidden = {**ids, "volumes": site.add_volume("other").resource.meta.id}  # type: ignore[attr-defined]
    until(lambda: not list(cloud.client.operations.list(filter="phase = PHASE_RUNNING")), what="no running operation")
    scope.hidden = site.project.meta.id
    yield site
    scope.hidden = ""


def hidden(site: Site, kind: str) -> str:
    return str(site.hidden[kind])  # type: ignore[attr-defined]


CALLS: list[tuple[str, Callable[[Site], Any]]] = [
    ("get", lambda site: site.client.instances.get(hidden(site, "instances"))),
    ("update", lambda site: site.client.volumes.begin_update(volume(site), ["size"])),
    ("delete", lambda site: site.client.instances.begin_delete(hidden(site, "instances"))),
    ("a change of state", lambda site: site.client.instances.begin("stop", hidden(site, "instances"))),
    ("a command", lambda site: site.client.instances.begin("reboot", hidden(site, "instances"))),
    ("waiting", lambda site: site.client.operations.wait(operation(site), 1)),
    ("the project itself", lambda site: site.client.projects.get(site.project.meta.id)),
]


def volume(site: Site) -> volume_pb2.Volume:
    wanted = volume_pb2.Volume(size=2 * GIB)
    wanted.meta.id = hidden(site, "volumes")
    return wanted


def describe(tx: Transaction, id_: str) -> None:
    volume = tx.lock(volume_pb2.Volume, id_)
    volume.description = "changed while hidden"
    tx.put("Volume", volume)


def operation(site: Site) -> str:
    entries = site.cloud.kahuna.store.view.all("Operation")
    found = (one for one in entries if isinstance(one, operation_pb2.Operation) and one.target_kind == "Instance")
    return next(found).meta.id


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[what for what, _ in CALLS])
def test_a_call_on_a_hidden_resource_is_not_found(site: Site, call: Callable[[Site], Any]) -> None:
    before = site.cloud.kahuna.store.view.revision
    with pytest.raises(errors.NotFound, match=r"no \S+ has the id"):
        call(site)
    assert site.cloud.kahuna.store.view.revision == before


def test_lists_leave_out_hidden_resources(site: Site) -> None:
    assert list(site.client.instances.list()) == []
    assert list(site.client.operations.list(filter=f'project = "{site.project.meta.id}"')) == []
    assert [region.name for region in site.client.regions.list()] == ["eu"]


def test_a_watch_leaves_out_hidden_resources(site: Site, scope: HidingScope) -> None:
    watch = iter(site.client.volumes.watch())
    assert next(watch).change == "synced"
    site.cloud.loop.run(site.cloud.kahuna.store.run(lambda tx: describe(tx, hidden(site, "volumes"))))
    assert next(watch).change == "synced"  # the change is passed over
    scope.hidden = ""
    site.add_volume("visible")
    event = next(watch)
    assert event.resource is not None
    assert event.resource.name == "visible"


@pytest.mark.parametrize("kind", [adapter_pb2.Adapter, volume_pb2.Volume])
def test_a_reference_to_a_hidden_resource_is_refused(site: Site, kind: Any) -> None:
    """With the message for a resource that does not exist."""
    own = {"subnet": site.subnet.meta.id} if kind is adapter_pb2.Adapter else {"storage_pool": site.pool.meta.id}
    wanted = kind(project=site.project.meta.id, name="new", **own, **({} if "subnet" in own else {"size": GIB}))
    with pytest.raises(errors.Invalid, match=f"project: no project has the id '{site.project.meta.id}'; list them"):
        site.client.of(kind).begin_create(wanted)


def test_a_repeated_request_does_not_show_a_resource_hidden_since(site: Site, scope: HidingScope) -> None:
    scope.hidden = ""
    wanted = volume_pb2.Volume(project=site.project.meta.id, name="once", storage_pool=site.pool.meta.id, size=GIB)
    volumes = site.client.volumes
    volumes.begin_create(wanted, request_id="11111111-1111-4111-8111-111111111111")
    scope.hidden = site.project.meta.id
    with pytest.raises(errors.NotFound):
        volumes.begin_create(wanted, request_id="11111111-1111-4111-8111-111111111111")
