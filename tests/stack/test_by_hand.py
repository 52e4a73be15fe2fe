"""Changes behind Kahuna's back: by people on a host, and by guests themselves."""

from collections.abc import Iterator

import pytest

from tests.stack import consistency
from tests.stack.site import BOOT_TIMEOUT_S, Site
from tests.stack.workflows import RUNNING, STOPPED, InstanceWorkflows
from tests.waiting import until

pytestmark = pytest.mark.libvirt

STRANGER = """<domain type='qemu'><name>mine</name><memory>65536</memory><os><type>hvm</type></os></domain>"""


@pytest.fixture
def web(site: Site) -> Iterator[InstanceWorkflows]:
    """A running instance; nothing of it is left afterwards."""
    web = InstanceWorkflows(site, "web", "10.9.0.0/24", site.idle)
    until(web.create(), what="it runs")
    consistency.await_equal(site.stack)
    yield web
    until(web.delete(), what="it is gone")
    consistency.await_equal(site.stack)


def test_an_instance_destroyed_by_hand_comes_back(web: InstanceWorkflows) -> None:
    host = web.site.stack.host
    before = host.guest_pids()
    host.virsh("destroy", web.instance.meta.id)
    until(lambda: web.site.stack.get(web.instance).status.restarts == 1, what="it is started again")
    until(lambda: web.power() == RUNNING, what="it runs")
    assert host.guest_pids() != before


def test_a_domain_created_by_hand_is_reported_and_left_alone(web: InstanceWorkflows) -> None:
    stack = web.site.stack

    def strangers() -> list[str]:
        return list(stack.get(web.site.host).status.strangers)

    (stack.folder / "mine.xml").write_text(STRANGER)
    stack.host.virsh("define", str(stack.folder / "mine.xml"))
    try:
        until(lambda: strangers() == ["domain mine"], timeout=40, what="the stranger is reported")
        web.site.restart_agent()
        until(web.resize(), what="the agent is at work")
        assert stack.host.virsh("list", "--all", "--name").split().count("mine") == 1
        assert strangers() == ["domain mine"]
    finally:
        stack.host.virsh("undefine", "mine")
    until(lambda: not strangers(), timeout=40, what="no strangers")


def test_instances_run_on_while_libvirt_is_dead(web: InstanceWorkflows) -> None:
    host = web.site.stack.host
    before = host.guest_pids()
    host.kill_libvirtd()
    until(lambda: "libvirt" in condition_messages(web), what="the reason is reported")
    assert host.guest_pids() == before
    web.stop()
    host.start_libvirtd()
    until(lambda: web.power() == STOPPED, timeout=40, what="it is stopped, as requested meanwhile")


def condition_types(web: InstanceWorkflows) -> list[str]:
    return [condition.type for condition in web.site.stack.get(web.instance).meta.conditions]


def condition_messages(web: InstanceWorkflows) -> str:
    return " ".join(condition.message for condition in web.site.stack.get(web.instance).meta.conditions)


def test_a_guest_that_powers_itself_off_stays_off(site: Site) -> None:
    web = InstanceWorkflows(site, "self", "10.9.0.0/24", site.bootable_guest())
    until(web.create(), what="it runs")
    type_into_console(web, b"poweroff -f\n", after=b"/ # ")
    until(lambda: web.power() == STOPPED, timeout=BOOT_TIMEOUT_S, what="it is off")
    until(lambda: condition_types(web) == ["GuestPoweredOff"], what="the reason is reported")
    assert site.stack.get(web.instance).power == STOPPED
    site.restart_agent()
    consistency.await_equal(site.stack)
    assert web.power() == STOPPED
    until(web.start(), what="it runs again")
    until(lambda: not condition_types(web), what="no reason is reported")
    until(web.delete(), what="it is gone")
    consistency.await_equal(site.stack)


def type_into_console(web: InstanceWorkflows, keys: bytes, *, after: bytes) -> None:
    """Types into an instance's console once it has printed `after`, and waits for the echo."""
    instances, id_ = web.site.stack.client.instances, web.instance.meta.id
    shown = instances.console(id_)
    session, printed = next(shown).session, b""
    while after not in printed:
        printed += next(shown).data
    instances.type_console(id_, session=session, data=keys)
    while keys.strip() not in printed.rpartition(after)[2]:
        printed += next(shown).data
    shown.close()
