"""Labels: names and values of a client's own, which filters find and agents are not told of."""

import pytest

from kowa import contract, errors
from kowa.v2 import instance_pb2, operation_pb2, region_pb2, vnet_pb2
from tests.control_plane import ControlPlane, FakeHost
from tests.site import Site, make_site
from tests.waiting import until

KINDS = contract.load().kinds


def test_every_kind_that_clients_write_has_them_at_one_place() -> None:
    for kind in KINDS.values():
        labels = kind.message.fields.get("labels")
        assert (labels is not None) == ("create" in kind.service.methods), kind.name
        if labels is not None:
            assert (labels.is_map, labels.type, labels.immutable) == (True, "string", False)
            assert contract.load().stub(kind.message.name).DESCRIPTOR.fields_by_name["labels"].number == 15


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site with a host."""
    return make_site(cloud)


def test_they_are_written_found_replaced_and_cleared(site: Site) -> None:
    site.connect_host()
    wanted = site.wanted("web")
    wanted.labels.update({"env": "prod", "k8s.io/role": "db"})
    web = site.client.instances.create(wanted)
    site.client.instances.create(site.wanted("db"))

    def found(condition: str) -> list[str]:
        return [machine.name for machine in site.client.instances.list(filter=condition, order_by="labels.env, name")]

    assert found('labels.env = "prod"') == found("labels:env") == found('labels."k8s.io/role" = db') == ["web"]
    assert found("labels.env != prod") == ["db"]
    assert found("") == ["db", "web"]
    changed = instance_pb2.Instance(meta=web.meta, labels={"env": "test"})
    changed = site.client.instances.update(changed, ["labels"])
    assert dict(changed.labels) == {"env": "test"}
    with pytest.raises(errors.Conflict, match="was changed meanwhile"):
        site.client.instances.update(instance_pb2.Instance(meta=web.meta), ["labels"])
    assert not site.client.instances.update(instance_pb2.Instance(meta=changed.meta), ["labels"]).labels


def test_a_change_of_them_moves_revision_and_etag_and_no_generation_and_no_agent_hears_of_it(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    for resources, kind, id_ in (
        (site.client.instances, instance_pb2.Instance, web.meta.id),
        (site.client.vnets, vnet_pb2.Vnet, site.vnet.meta.id),
        (site.client.regions, region_pb2.Region, site.region.meta.id),
    ):
        before = resources.get(id_)
        told = host.wanted.get(id_)
        changed = resources.update(kind(meta=before.meta, labels={"env": "prod"}), ["labels"])
        assert changed.meta.generation == before.meta.generation
        assert changed.meta.revision > before.meta.revision
        assert changed.meta.update_time.ToNanoseconds() > before.meta.update_time.ToNanoseconds()
        assert changed.meta.etag != before.meta.etag
        assert host.wanted.get(id_) == told
    # What moves anew with something else goes out, without them; a host that has lost its store hears the same.
    web = site.client.instances.get(web.meta.id)
    web.description = "the shop"
    moved = site.client.instances.update(web, ["description"])
    assert moved.meta.generation == web.meta.generation + 1
    until(lambda: host.wanted[web.meta.id].generation == moved.meta.generation, what="the machine as it is now")
    assert b"prod" not in b"".join(described.resource.value for described in host.wanted.values())
    anew = FakeHost()
    site.cloud.dial(site.secret, anew, "anew")
    until(lambda: anew.wanted.keys() == host.wanted.keys(), what="the slice once more")
    assert anew.wanted == host.wanted


def test_a_change_of_them_waits_for_no_host_and_replaces_nothing_under_way(site: Site) -> None:
    web = site.running_on_lost_host()
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    labelled = instance_pb2.Instance(labels={"env": "prod"})
    labelled.meta.id = web.meta.id
    begun = site.client.instances.begin_update(labelled, ["labels"])
    done, waiting = (site.client.operations.get(each) for each in (begun.operation_id, stop))
    assert (done.phase, done.progress, done.HasField("end_time")) == (operation_pb2.PHASE_DONE, 100, True)
    assert waiting.phase == operation_pb2.PHASE_WAITING
    # Said again it is done again, with something else it is as slow as that.
    labelled.description = "the shop"
    slow = site.client.instances.begin_update(labelled, ["labels", "description"])
    assert site.client.operations.get(slow.operation_id).phase == operation_pb2.PHASE_WAITING
