"""Whatever is wanted and whatever is there: a plan comes to rest, also when cut short, and removes nobody's disk."""

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
from agent_kaktus.plan import strangers
from kowa.runtime.desired import Desired
from kowa.v2 import instance_pb2
from tests.kaktus.settings_of import settings_of

from .fake_host import FakeHost, steps_of
from .slices import MIB, Slice, id_of

SUM = "0" * 64
NAMES = ("pool", "debian", "root", "data", "vnet", "subnet", "nic", "web", "db")
POWERS = (instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED)


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    """Any part of what two instances need, any part of that gone; references may lead nowhere."""
    slice_ = Slice()
    slice_.host()
    there = draw(st.sets(st.sampled_from(NAMES)))
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
            if name in there:
                makers[name]()
    slice_.gone(*draw(st.sets(st.sampled_from(sorted(there))) if there else st.just(set())))
    return slice_


@st.composite
def hosts(draw: st.DrawFn) -> FakeHost:
    """A host with a past, with strangers on it, and with things that went wrong."""
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
        host.metadata_rules = draw(st.sampled_from(["", "broken"]))
    if draw(st.booleans()):
        host.restart_agent()
    for port in [name for name in host.links if names.is_metadata_port(name) and draw(st.booleans())]:
        del host.links[port]
    for filtered in [tap for tap in host.filters if draw(st.booleans())]:
        del host.filters[filtered]
    return host


def possessions(host: FakeHost) -> set[str]:
    bridges = {name for name, link in host.links.items() if link.is_bridge}
    return {*host.domains, *host.foreign_domains, *host.pools, *host.images, *bridges}


def may_go(host: FakeHost, desired: Desired) -> set[str]:
    """What an explicit GONE names."""
    bridges = {vnet.bridge for vnet in desired.of(Vnet).values() if vnet.gone}
    return {wanted.id for wanted in desired if wanted.gone} | bridges


@given(hosts(), slices())
@settings(deadline=None)
def test_it_comes_to_rest_and_takes_only_what_is_gone(host: FakeHost, wanted: Slice) -> None:
    desired = KINDS.parse(wanted.objects)
    before = possessions(host)
    states = {id_: domain for id_, domain in host.domains.items() if id_ not in desired.of(Instance)}
    result = host.converge(desired)
    assert not steps_of(result)
    assert before - possessions(host) <= may_go(host, desired)
    assert {id_: host.domains[id_] for id_ in states} == states, "touched what is in no slice"
    for id_ in states:
        assert f"domain kowa-{id_}" in strangers(host.view(desired))


@given(hosts(), slices(), st.lists(st.integers(0, 6), max_size=6))
@settings(deadline=None)
def test_killed_between_any_two_steps_it_still_comes_to_rest(host: FakeHost, wanted: Slice, cuts: list[int]) -> None:
    desired = KINDS.parse(wanted.objects)
    before = possessions(host)
    for cut in cuts:
        for step in steps_of(host.plan(desired))[:cut]:
            host.do(step)
        host.restart_agent()
    assert not steps_of(host.converge(desired))
    assert before - possessions(host) <= may_go(host, desired)


@given(hosts(), slices())
@settings(deadline=None)
def test_metadata_is_served_where_instances_are_and_nowhere_else(host: FakeHost, wanted: Slice) -> None:
    desired = KINDS.parse(wanted.objects)
    host.converge(desired)
    may_stand = bool(host.services)
    for vnet in desired.of(Vnet).values():
        instances = [instance for instance in desired.of(Instance).values() if not instance.gone]
        subnets = {subnet.id for subnet in desired.of(Subnet).values() if subnet.vnet == vnet.id and not subnet.gone}
        adapters = [adapter for adapter in desired.of(Adapter).values() if not adapter.gone]
        plugged = {adapter.id for adapter in adapters if adapter.subnet in subnets}
        is_asked = any(not plugged.isdisjoint(instance.adapters) for instance in instances)
        is_there = vnet.bridge in host.links
        may_stand |= vnet.metadata_port in host.links or (is_asked and not vnet.gone)
        if not vnet.gone or not is_there:
            assert (vnet.id in host.services) == (vnet.metadata_port in host.links) == (is_asked and is_there)
    assert may_stand or host.metadata_rules == ""


@given(hosts(), slices())
@settings(deadline=None)
def test_what_is_gone_goes_as_soon_as_nothing_holds_it(host: FakeHost, wanted: Slice) -> None:
    desired = KINDS.parse(wanted.objects)
    result = host.converge(desired)
    for thing in desired:
        verdict = result[thing.id]
        if thing.gone:
            assert verdict.gone or verdict.waits
        if verdict.gone:
            assert thing.gone
            assert thing.id not in possessions(host)
