"""Labels: a client's own names and values, which filters find and agents do not get."""

import pytest

from kowa import contract, errors
from kowa.v2 import instance_pb2, operation_pb2, region_pb2, vnet_pb2
from tests.control_plane import ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.waiting import until

KINDS = contract.load().kinds


def test_every_kind_that_clients_create_has_labels_in_field_15() -> None:
    for kind in KINDS.values():
        labels = kind.message.fields.get("labels")
        assert (labels is not None) == ("create" in kind.service.methods), kind.name
        if labels is not None:
            assert (labels.is_map, labels.type, labels.immutable) == (True, "string", False)
            assert contract.load().stub(kind.message.name).DESCRIPTOR.fields_by_name["labels"].number == 15


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


def test_labels_are_written_found_replaced_and_cleared(site: Site) -> None:
    site.connect_host()
    wanted = site.wanted("web")
    wanted.labels.update({"env": "prod", "k8s.io/role": "db"})
    web = site.client.instances.create(wanted)
    site.client.instances.create(site.wanted("db"))

    def found(condition: str) -> list[str]:
        return [instance.name for instance in site.client.instances.list(filter=condition, order_by="labels.env, name")]

    assert found('labels.env = "prod"') == found("labels:env") == found('labels."k8s.io/role" = db') == ["web"]
    assert found("labels.env != prod") == ["db"]
    assert found("") == ["db", "web"]
    changed = instance_pb2.Instance(meta=web.meta, labels={"env": "test"})
    changed = site.client.instances.update(changed, ["labels"])
    assert dict(changed.labels) == {"env": "test"}
    with pytest.raises(errors.Conflict, match="was changed meanwhile"):
        site.client.instances.update(instance_pb2.Instance(meta=web.meta), ["labels"])
    assert not site.client.instances.update(instance_pb2.Instance(meta=changed.meta), ["labels"]).labels


def test_a_change_of_labels_keeps_the_generation_and_is_not_sent_to_agents(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    for resources, kind, id_ in (
        (site.client.instances, instance_pb2.Instance, web.meta.id),
        (site.client.vnets, vnet_pb2.Vnet, site.vnet.meta.id),
        (site.client.regions, region_pb2.Region, site.region.meta.id),
    ):
        before = resources.get(id_)
        sent = host.wanted.get(id_)
        changed = resources.update(kind(meta=before.meta, labels={"env": "prod"}), ["labels"])
        assert changed.meta.generation == before.meta.generation
        assert changed.meta.revision > before.meta.revision
        assert changed.meta.update_time.ToNanoseconds() > before.meta.update_time.ToNanoseconds()
        assert changed.meta.etag != before.meta.etag
        assert host.wanted.get(id_) == sent
    # A change of another field is sent without the labels; an agent without a store gets the same slice.
    web = site.client.instances.get(web.meta.id)
    web.description = "the shop"
    updated = site.client.instances.update(web, ["description"])
    assert updated.meta.generation == web.meta.generation + 1
    until(lambda: host.wanted[web.meta.id].generation == updated.meta.generation, what="the changed instance")
    assert b"prod" not in b"".join(described.resource.value for described in host.wanted.values())
    fresh = FakeWorker()
    site.cloud.dial(site.secret, fresh, "fresh")
    until(lambda: fresh.wanted.keys() == host.wanted.keys(), what="the whole slice")
    assert fresh.wanted == host.wanted


def test_a_change_of_labels_is_done_at_once_and_supersedes_no_operation(site: Site) -> None:
    web = site.running_on_lost_host()
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    labelled = instance_pb2.Instance(labels={"env": "prod"})
    labelled.meta.id = web.meta.id
    relabel = site.client.instances.begin_update(labelled, ["labels"])
    done, waiting = (site.client.operations.get(each) for each in (relabel.operation_id, stop))
    assert (done.phase, done.progress, done.HasField("end_time")) == (operation_pb2.PHASE_DONE, 100, True)
    assert waiting.phase == operation_pb2.PHASE_WAITING
    # Together with a change of another field it waits for the host.
    labelled.description = "the shop"
    slow = site.client.instances.begin_update(labelled, ["labels", "description"])
    assert site.client.operations.get(slow.operation_id).phase == operation_pb2.PHASE_WAITING
