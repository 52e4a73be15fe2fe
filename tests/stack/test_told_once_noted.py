"""That a guest switched itself off is told only once it is noted: whoever is told may want it stopped at once."""

from pathlib import Path

from agent_kaktus import names, seed
from agent_kaktus.actual import Actual, Domain, Mark
from agent_kaktus.compute import domain
from agent_kaktus.desired import Desired, Machine
from agent_kaktus.memory import Memory
from agent_kaktus.parse import parse
from agent_kaktus.plan import plan
from agent_kaktus.settings import Settings
from agent_kaktus.site import Site
from agent_kaktus.view import Verdict, View
from kowa.v2 import instance_pb2
from tests.kaktus.slices import Slice, id_of, small_house

WEB = id_of("web")


def verdict(site: Site, wanted: Slice, mark: Mark) -> Verdict:
    """On a machine that its guest has switched off."""
    desired = parse(wanted.objects)
    machine = desired.machines[WEB]
    found = Domain(WEB, names.domain(WEB), left=True, mark=mark, running_digest=mark.digest)
    seeds = {WEB: seed.digest(site, machine, desired.outfit(machine))}
    return plan(View(site, desired, Actual(domains={WEB: found}, seeds=seeds), Memory())).verdicts[WEB]


def digest(site: Site, desired: Desired, machine: Machine) -> str:
    return domain.digest(site, machine, desired.outfit(machine))


def test_it_is_noted_then_told_and_told_of_one_that_shall_be_off(tmp_path: Path) -> None:
    settings = Settings(
        server="", ca=tmp_path, token=tmp_path, state=tmp_path, pools=tmp_path / "pools", accelerator="qemu"
    )
    site, wanted = settings.site(), small_house()
    wanted.instance("web")
    desired = parse(wanted.objects)
    ran = Mark(WEB, digest(site, desired, desired.machines[WEB]), ran=1)
    rests = Mark(WEB, ran.digest, ran=1, rests=1)

    first = verdict(site, wanted, ran)
    assert (str(first), first.remarks) == ("note web rests", ())
    assert str(verdict(site, wanted, rests)) == "GuestPoweredOff"
    wanted.instance("web", power=instance_pb2.POWER_STOPPED)
    assert str(verdict(site, wanted, rests)) == "GuestPoweredOff"
