"""Values that no host can have: reports with them are dropped by name."""

from collections.abc import Callable

from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2, kaktus_pb2, meta_pb2, storage_pool_pb2, template_pb2, volume_pb2
from tests.fleet.reporting_host import APPLIED, ReportingHost, instance_status
from tests.site import Site
from tests.waiting import until


def conditions(count: int) -> meta_pb2.Meta:
    found = (meta_pb2.Condition(type=f"Type{number}", message="odd") for number in range(count))
    return meta_pb2.Meta(conditions=found)


HUGE = (1 << 63) - 1
ABSURD: list[tuple[str, Callable[[], Message], str]] = [
    ("instance", lambda: instance_status(99), "status.power 99 is none of its values"),  # type: ignore[arg-type]
    ("instance", lambda: instance_status(restarts=2**32 - 1), "status.restarts is 4294967295, 1000 at most"),
    ("instance", lambda: instance_status(addresses=["10.20.0.1"] * 25), "status.addresses has 25 elements, 24 at most"),
    ("instance", lambda: instance_status(addresses=["nonsense"]), "status.addresses[0] 'nonsense' is no IP address"),
    ("instance", lambda: instance_pb2.Instance(meta=conditions(3000)), "meta.conditions has 3000 elements, 16 at most"),
    (
        "instance",
        lambda: instance_pb2.Instance(meta=meta_pb2.Meta(conditions=[meta_pb2.Condition(type="T" * 65)])),
        "meta.conditions[0].type has 65 characters, 64 at most",
    ),
    (
        "volume",
        lambda: volume_pb2.Volume(status=volume_pb2.VolumeStatus(size=-(1 << 63))),
        "status.size is -9223372036854775808, 0 at least",
    ),
    ("volume", lambda: volume_pb2.Volume(status=volume_pb2.VolumeStatus(allocation=HUGE)), f"allocation is {HUGE}"),
    (
        "template",
        lambda: template_pb2.Template(status=template_pb2.TemplateStatus(progress=101)),
        "status.progress is 101, 100 at most",
    ),
    ("template", lambda: template_pb2.Template(status=template_pb2.TemplateStatus(size=HUGE)), f"size is {HUGE}"),
    ("kaktus", lambda: kaktus_pb2.Kaktus(status=kaktus_pb2.KaktusStatus(memory=HUGE)), f"status.memory is {HUGE}"),
    ("kaktus", lambda: kaktus_pb2.Kaktus(status=kaktus_pb2.KaktusStatus(memory=-1)), "status.memory is -1, 0 at least"),
    ("kaktus", lambda: kaktus_pb2.Kaktus(status=kaktus_pb2.KaktusStatus(cpus=2**32 - 1)), "status.cpus is 4294967295"),
    (
        "kaktus",
        lambda: kaktus_pb2.Kaktus(status=kaktus_pb2.KaktusStatus(numa_nodes=[kaktus_pb2.NumaNode(memory=-1)])),
        "status.numa_nodes[0].memory is -1, 0 at least",
    ),
    (
        "pool",
        lambda: storage_pool_pb2.StoragePool(status=storage_pool_pb2.StoragePoolStatus(capacity=HUGE)),
        f"status.capacity is {HUGE}",
    ),
    (
        "pool",
        lambda: storage_pool_pb2.StoragePool(status=storage_pool_pb2.StoragePoolStatus(available=-1)),
        "status.available is -1, 0 at least",
    ),
]  # fmt: skip


def test_absurd_values_are_dropped_by_name_and_nothing_of_them_is_stored(
    site: Site, host: ReportingHost, web: instance_pb2.Instance
) -> None:
    ids = {
        "instance": web.meta.id,
        "volume": web.volumes[0],
        "template": site.template.meta.id,
        "kaktus": site.host.meta.id,
        "pool": site.pool.meta.id,
    }
    view, sessions = site.cloud.kahuna.store.view, site.cloud.kahuna.fleet.sessions
    for noun, resource, problem in ABSURD:
        reported, kind = resource(), resource().DESCRIPTOR.name
        before = view.find(kind, ids[noun])
        dropped = sessions[site.agent.meta.id].dropped
        dropped.clear()
        report = fleet_pb2.Report(id=ids[noun], observed_generation=1, outcome=APPLIED)
        report.resource.CopyFrom(resources.pack(reported))
        host.stream.send(reports=fleet_pb2.Reports(reports=[report]))
        until(lambda counted=dropped: "BAD_VALUE" in counted, what=f"the drop of {noun} {problem}")  # type: ignore[misc]
        assert problem in dropped["BAD_VALUE"].message
        assert view.find(kind, ids[noun]) == before
