"""A guest's power-off is reported only once it is marked, since Kahuna may request a stop as soon as it is reported."""

from dataclasses import replace
from pathlib import Path

from agent_kaktus import names
from agent_kaktus.actual import Actual, Domain, Mark
from agent_kaktus.compute import domain, seed
from agent_kaktus.compute.desired import Instance, devices_of
from agent_kaktus.kind import View
from agent_kaktus.kinds import KINDS
from kowa.runtime.plan import plan
from kowa.runtime.verdict import Verdict
from kowa.v2 import instance_pb2
from tests.kaktus.settings_of import settings_of
from tests.kaktus.slices import Slice, id_of, slice_with_network

WEB = id_of("web")
CONFIG = settings_of(Path("/pools"), Path("/instances"), accelerator="qemu")


def verdict(wanted: Slice, mark: Mark) -> Verdict:
    """The verdict on instance web after its guest has powered it off."""
    desired = KINDS.parse(wanted.objects)
    web = desired.of(Instance)[WEB]
    found = Domain(WEB, names.domain(WEB), powered_off=True, mark=mark, running_fingerprint=mark.fingerprint)
    seeds = {WEB: seed.fingerprint(CONFIG, web, devices_of(CONFIG, desired, web))}
    return plan(View(KINDS, CONFIG, desired, Actual(domains={WEB: found}, seeds=seeds)))[WEB]


def test_a_power_off_is_marked_then_reported_also_of_a_stopped_instance() -> None:
    wanted = slice_with_network()
    wanted.instance("web")
    desired = KINDS.parse(wanted.objects)
    web = desired.of(Instance)[WEB]
    ran = Mark(WEB, domain.fingerprint(CONFIG, web, devices_of(CONFIG, desired, web)), ran_at=1)
    powered_off = replace(ran, powered_off_at=1)

    first = verdict(wanted, ran)
    assert (str(first), first.conditions) == ("mark web powered off", ())
    assert str(verdict(wanted, powered_off)) == "GuestPoweredOff"
    wanted.instance("web", power=instance_pb2.POWER_STOPPED)
    assert str(verdict(wanted, powered_off)) == "GuestPoweredOff"
