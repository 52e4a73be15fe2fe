"""What people do to a host behind Kahuna's back, and what a guest does to itself."""

from collections.abc import Iterator

import pytest

from tests.stack import consistency
from tests.stack.site import BOOT_LIMIT_S, Site
from tests.stack.workflows import RUNNING, STOPPED, InstanceWorkflows
from tests.waiting import until

pytestmark = pytest.mark.libvirt

STRANGER = """<domain type='qemu'><name>mine</name><memory>65536</memory><os><type>hvm</type></os></domain>"""


@pytest.fixture
def life(site: Site) -> Iterator[InstanceWorkflows]:
    """A machine that runs, and nothing of it afterwards."""
    made = InstanceWorkflows(site, "web", "10.9.0.0/24", site.idle)
    until(made.create(), what="it runs")
    consistency.await_equal(site.stack)
    yield made
    until(made.delete(), what="it is gone")
    consistency.await_equal(site.stack)


def test_a_machine_destroyed_by_hand_comes_back(life: InstanceWorkflows) -> None:
    host = life.site.stack.host
    before = host.guest_pids()
    host.virsh("destroy", life.machine.meta.id)
    until(lambda: life.site.stack.get(life.machine).status.restarts == 1, what="it is started again")
    until(lambda: life.power() == RUNNING, what="it runs")
    assert host.guest_pids() != before


def test_a_domain_made_by_hand_is_reported_and_left_alone(life: InstanceWorkflows) -> None:
    stack = life.site.stack

    def strangers() -> list[str]:
        return list(stack.get(life.site.host).status.strangers)

    (stack.folder / "mine.xml").write_text(STRANGER)
    stack.host.virsh("define", str(stack.folder / "mine.xml"))
    try:
        until(lambda: strangers() == ["domain mine"], timeout=40, what="the stranger is reported")
        life.site.renew_agent()
        until(life.resize(), what="the agent is at work")
        assert stack.host.virsh("list", "--all", "--name").split().count("mine") == 1
        assert strangers() == ["domain mine"]
    finally:
        stack.host.virsh("undefine", "mine")
    until(lambda: not strangers(), timeout=40, what="nobody is a stranger")


def test_machines_run_on_while_libvirt_is_dead(life: InstanceWorkflows) -> None:
    host = life.site.stack.host
    before = host.guest_pids()
    host.kill_libvirtd()
    until(lambda: "libvirt" in waits_for(life), what="the reason is told")
    assert host.guest_pids() == before
    life.stop()
    host.start_libvirtd()
    until(lambda: life.power() == STOPPED, timeout=40, what="what was asked for meanwhile")


def remarks(life: InstanceWorkflows) -> list[str]:
    return [condition.type for condition in life.site.stack.get(life.machine).meta.conditions]


def waits_for(life: InstanceWorkflows) -> str:
    return " ".join(condition.message for condition in life.site.stack.get(life.machine).meta.conditions)


def test_a_guest_that_powers_itself_off_stays_off(site: Site) -> None:
    life = InstanceWorkflows(site, "self", "10.9.0.0/24", site.booting())
    until(life.create(), what="it runs")
    types(life, b"poweroff -f\n", after=b"/ # ")
    until(lambda: life.power() == STOPPED, timeout=BOOT_LIMIT_S, what="it is off")
    until(lambda: remarks(life) == ["GuestPoweredOff"], what="it is told why")
    assert site.stack.get(life.machine).power == STOPPED
    site.renew_agent()
    consistency.await_equal(site.stack)
    assert life.power() == STOPPED
    until(life.start(), what="it runs again")
    until(lambda: not remarks(life), what="nothing is left to be told")
    until(life.delete(), what="it is gone")
    consistency.await_equal(site.stack)


def types(life: InstanceWorkflows, keys: bytes, *, after: bytes) -> None:
    """Types into a machine's console when it has printed something."""
    instances, id_ = life.site.stack.client.instances, life.machine.meta.id
    shown = instances.console(id_)
    session, printed = next(shown).session, b""
    while after not in printed:
        printed += next(shown).data
    instances.type_console(id_, session=session, data=keys)
    while keys.strip() not in printed.rpartition(after)[2]:
        printed += next(shown).data
    shown.close()
