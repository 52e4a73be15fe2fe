"""For any slice and any host, planning comes to rest, also when interrupted, and removes only what is gone."""

from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_kaktus import names
from agent_kaktus.actual import Domain, Image, Link
from agent_kaktus.compute.desired import Instance
from agent_kaktus.kinds import KINDS
from agent_kaktus.network.adapter import Adapter
from agent_kaktus.network.vnet import Subnet, Vnet
from kowa.runtime.desired import Desired
from kowa.runtime.plan import strangers
from kowa.v2 import instance_pb2
from tests.kaktus.settings_of import settings_of

from .fake_host import FakeHost, steps_of
from .slices import MIB, Slice, id_of

SUM = "0" * 64
NAMES = ("pool", "debian", "root", "data", "vnet", "subnet", "nic", "web", "db")
POWERS = (instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED)


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    """Any subset of the objects of two instances, some of them gone; references may be missing."""
    slice_ = Slice()
    slice_.host()
    present = draw(st.sets(st.sampled_from(NAMES)))
    size = draw(st.sampled_from([1, 2, 3])) * MIB
    makers: dict[str, Callable[[], object]] = {
        "pool": slice_.pool,
        "debian": lambda: slice_.template("debian", "debian.qcow2", SUM),
        "root": lambda: slice_.volume("root", size, "debian"),
        "data": lambda: slice_.volume("data", size),
        "vnet": slice_.vnet,
        "subnet": slice_.subnet,
        "nic": lambda: slice_.adapter("nic", "10.9.0.2"),
        "web": lambda: slice_.instance(
            "web", ("root", "data"), ("nic",), power=draw(st.sampled_from(POWERS)), vcpus=draw(st.sampled_from([1, 2]))
        ),
        "db": lambda: slice_.instance("db", ("data",), power=draw(st.sampled_from(POWERS))),
    }
    for _ in range(draw(st.integers(1, 3))):  # the generation
        for name in NAMES:
            if name in present:
                makers[name]()
    slice_.gone(*draw(st.sets(st.sampled_from(sorted(present))) if present else st.just(set())))
    return slice_


@st.composite
def hosts(draw: st.DrawFn) -> FakeHost:
    """A host after an earlier slice, with strangers, and with failures since."""
    config = settings_of(Path("/pools"), Path("/instances"), hold_gateway=draw(st.booleans()))
    host = FakeHost(config, obeys=draw(st.booleans()))
    if draw(st.booleans()):
        host.converge(KINDS.parse(draw(slices()).objects))
    if draw(st.booleans()):
        host.foreign_domains["x"] = Domain("x", "stranger")
        host.links["kb0123456789ab"] = Link("kb0123456789ab", 7, is_bridge=True)
        host.images[id_of("stray")] = Image(id_of("stray"), id_of("pool"), "qcow2", MIB)
    for domain in list(host.domains.values()):
        if domain.is_on and draw(st.booleans()):
            host.switch_off(domain.id, by_guest=draw(st.booleans()))
    if draw(st.booleans()):
        host.metadata_fingerprint = draw(st.sampled_from(["", "broken"]))
    if draw(st.booleans()):
        host.restart_agent()
    for port in [name for name in host.links if names.is_metadata_port(name) and draw(st.booleans())]:
        del host.links[port]
    for filtered in [tap for tap in host.filters if draw(st.booleans())]:
        del host.filters[filtered]
    return host


def removable_parts(host: FakeHost) -> set[str]:
    """The ids and bridges of all that an agent could remove."""
    bridges = {name for name, link in host.links.items() if link.is_bridge}
    return {*host.domains, *host.foreign_domains, *host.pools, *host.images, *bridges}


def gone_parts(host: FakeHost, desired: Desired) -> set[str]:
    """The ids and bridges of the objects that are gone."""
    bridges = {vnet.bridge for vnet in desired.of(Vnet).values() if vnet.gone}
    return {wanted.id for wanted in desired if wanted.gone} | bridges


@given(hosts(), slices())
@settings(deadline=None)
def test_planning_comes_to_rest_and_removes_only_gone_objects(host: FakeHost, wanted: Slice) -> None:
    desired = KINDS.parse(wanted.objects)
    before = removable_parts(host)
    states = {id_: domain for id_, domain in host.domains.items() if id_ not in desired.of(Instance)}
    result = host.converge(desired)
    assert not steps_of(result)
    assert before - removable_parts(host) <= gone_parts(host, desired)
    assert {id_: host.domains[id_] for id_ in states} == states, "changed a domain that is in no slice"
    for id_ in states:
        assert f"domain kowa-{id_}" in strangers(host.view(desired))


@given(hosts(), slices(), st.lists(st.integers(0, 6), max_size=6))
@settings(deadline=None)
def test_an_agent_killed_between_steps_still_comes_to_rest(host: FakeHost, wanted: Slice, cuts: list[int]) -> None:
    desired = KINDS.parse(wanted.objects)
    before = removable_parts(host)
    for cut in cuts:
        for step in steps_of(host.plan(desired))[:cut]:
            host.do(step)
        host.restart_agent()
    assert not steps_of(host.converge(desired))
    assert before - removable_parts(host) <= gone_parts(host, desired)


@given(hosts(), slices())
@settings(deadline=None)
def test_metadata_is_served_only_on_vnets_with_instances(host: FakeHost, wanted: Slice) -> None:
    desired = KINDS.parse(wanted.objects)
    host.converge(desired)
    may_have_filter = bool(host.services)
    for vnet in desired.of(Vnet).values():
        instances = [instance for instance in desired.of(Instance).values() if not instance.gone]
        subnets = {subnet.id for subnet in desired.of(Subnet).values() if subnet.vnet == vnet.id and not subnet.gone}
        adapters = [adapter for adapter in desired.of(Adapter).values() if not adapter.gone]
        plugged = {adapter.id for adapter in adapters if adapter.subnet in subnets}
        has_instances = any(not plugged.isdisjoint(instance.adapters) for instance in instances)
        has_bridge = vnet.bridge in host.links
        may_have_filter |= vnet.metadata_port in host.links or (has_instances and not vnet.gone)
        if not vnet.gone or not has_bridge:
            assert (vnet.id in host.services) == (vnet.metadata_port in host.links) == (has_instances and has_bridge)
    assert may_have_filter or host.metadata_fingerprint == ""


@given(hosts(), slices())
@settings(deadline=None)
def test_gone_objects_are_removed_once_nothing_uses_them(host: FakeHost, wanted: Slice) -> None:
    desired = KINDS.parse(wanted.objects)
    result = host.converge(desired)
    for thing in desired:
        verdict = result[thing.id]
        if thing.gone:
            assert verdict.gone or verdict.waits
        if verdict.gone:
            assert thing.gone
            assert thing.id not in removable_parts(host)
