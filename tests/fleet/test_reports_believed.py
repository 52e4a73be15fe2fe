"""What Kahuna believes of an agent's reports, each fault in the words of who would suffer from it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from structlog.testing import capture_logs

from kahuna.fleet import reports, service
from kowa import errors, resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import (
    adapter_pb2,
    instance_pb2,
    meta_pb2,
    operation_pb2,
    vnet_pb2,
    volume_pb2,
)
from tests.control_plane import FakeWorker
from tests.fleet.conftest import Dial
from tests.fleet.manual_agent import held
from tests.fleet.reporting_host import APPLIED, ReportingHost, instance_status
from tests.site import Site
from tests.waiting import until

WORKING, WAITING, FAILED = fleet_pb2.OUTCOME_WORKING, fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_FAILED
RUNNING, STOPPED = instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED
READY, PENDING, ERROR = meta_pb2.STATE_READY, meta_pb2.STATE_PENDING, meta_pb2.STATE_ERROR


def state(site: Site, web: instance_pb2.Instance) -> int:
    return int(site.client.instances.get(web.meta.id).meta.state)


def phase(site: Site, operation: str) -> operation_pb2.Phase:
    return site.client.operations.get(operation).phase


@pytest.mark.parametrize("outcome", [WORKING, WAITING])
def test_a_machine_on_which_the_agent_still_works_is_not_ready(
    site: Site, host: ReportingHost, web: instance_pb2.Instance, outcome: int
) -> None:
    host.report(web.meta.id, instance_status(), outcome)
    assert state(site, web) == PENDING
    host.report(web.meta.id, instance_status(), APPLIED)
    assert state(site, web) == READY
    host.report(web.meta.id, instance_status(), outcome, message="starts it again")
    assert state(site, web) == PENDING
    host.report(web.meta.id, instance_status(), APPLIED)
    assert state(site, web) == READY


def test_an_update_that_was_never_stored_does_not_count_as_applied(
    site: Site, host: ReportingHost, web: instance_pb2.Instance
) -> None:
    host.report(web.meta.id, instance_status())
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    sent = host.stream.batch()
    host.report(web.meta.id, instance_status(STOPPED), APPLIED, 2)
    host.report(web.meta.id, instance_status(STOPPED), APPLIED, 10**15)
    assert phase(site, stop) == operation_pb2.PHASE_RUNNING
    assert site.client.instances.get(web.meta.id).status.power == RUNNING
    assert host.dropped() == {"BAD_GENERATION": 2}
    host.stream.ack(sent)
    host.report(web.meta.id, instance_status(STOPPED), APPLIED, 2)
    assert phase(site, stop) == operation_pb2.PHASE_DONE


def test_a_report_right_behind_the_ack_is_believed(
    site: Site, host: ReportingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the task that waits for the ack gets its turn only after the report has been read."""
    read, timeout, add = asyncio.Event(), service._timeout, reports.Reports.add

    @contextlib.asynccontextmanager
    async def resume_late(seconds: float, action: str) -> AsyncIterator[None]:
        async with timeout(seconds, action):
            yield
            if action == "stored a batch":
                await read.wait()
                read.clear()

    async def note_and_add(self: reports.Reports, *arguments: Any) -> None:
        read.set()
        await add(self, *arguments)

    monkeypatch.setattr(service, "_timeout", resume_late)
    monkeypatch.setattr(reports.Reports, "add", note_and_add)
    for number in range(20):
        volume = site.add_volume(f"disk-{number}").resource
        parts = host.stream.batch()
        report = fleet_pb2.Report(id=volume.meta.id, observed_generation=1, outcome=APPLIED)
        report.resource.CopyFrom(resources.pack(volume_pb2.Volume()))
        host.stream.ack(parts)
        host.stream.send(reports=fleet_pb2.Reports(reports=[report]))
    host.settle()
    assert host.dropped() == {}
    assert {volume.meta.state for volume in site.client.volumes.list()} == {READY}


def test_a_running_machine_keeps_its_disks_when_an_agent_calls_it_gone_unasked(
    site: Site, host: ReportingHost, web: instance_pb2.Instance
) -> None:
    host.report(web.meta.id, instance_status())
    host.report(web.meta.id, instance_status(), gone=True)
    deletion = site.client.instances.begin_delete(web.meta.id).operation_id
    sent = host.stream.batch()
    for generation in (1, 2):
        host.report(web.meta.id, instance_status(), generation=generation, gone=True)
    assert state(site, web) == meta_pb2.STATE_DELETING
    assert site.client.volumes.get(web.volumes[0]).instance == web.meta.id
    assert host.dropped() == {"BAD_GONE": 2, "BAD_GENERATION": 1}
    host.stream.ack(sent)
    host.report(web.meta.id, instance_status(), generation=1, gone=True)
    assert state(site, web) == meta_pb2.STATE_DELETING
    host.report(web.meta.id, instance_status(), generation=2, gone=True)
    assert phase(site, deletion) == operation_pb2.PHASE_DONE
    assert not site.client.volumes.get(web.volumes[0]).instance


def test_an_agent_is_not_believed_for_listing_a_deletion_at_its_sign_in(
    site: Site, host: ReportingHost, web: instance_pb2.Instance, dial: Dial
) -> None:
    site.client.instances.begin_delete(web.meta.id)
    host.stream.close()
    stream = dial(site.secret)
    claim = fleet_pb2.Holding(id=web.meta.id, generation=3, gone=True)
    stream.sign_in(incarnation=site.cloud.kahuna.store.view.incarnation, holdings=[claim])
    report = fleet_pb2.Report(id=web.meta.id, observed_generation=3, gone=True, outcome=APPLIED)
    report.resource.CopyFrom(resources.pack(instance_pb2.Instance()))
    stream.send(reports=fleet_pb2.Reports(reports=[report]))
    sessions = site.cloud.kahuna.fleet.sessions
    until(lambda: sessions[site.agent.meta.id].dropped.get("NOT_HELD"), what="the drop")
    assert state(site, web) == meta_pb2.STATE_DELETING


def test_an_agent_that_still_holds_a_deletion_reports_it_before_any_batch(
    site: Site, host: ReportingHost, web: instance_pb2.Instance, dial: Dial
) -> None:
    deletion = site.client.instances.begin_delete(web.meta.id).operation_id
    (marked,) = host.store_batch()
    host.stream.close()
    stream = dial(site.secret)
    stream.sign_in(incarnation=site.cloud.kahuna.store.view.incarnation, holdings=held([marked]))
    report = fleet_pb2.Report(id=web.meta.id, observed_generation=2, gone=True, outcome=APPLIED)
    report.resource.CopyFrom(resources.pack(instance_pb2.Instance()))
    stream.send(reports=fleet_pb2.Reports(reports=[report]))
    until(lambda: phase(site, deletion) == operation_pb2.PHASE_DONE, what="the deletion")


def test_a_machine_that_is_seen_stopped_though_it_should_run_is_not_ready_and_start_tries_again(
    site: Site, host: ReportingHost, web: instance_pb2.Instance
) -> None:
    host.report(web.meta.id, instance_status())
    host.report(web.meta.id, instance_status(STOPPED))
    found = site.client.instances.get(web.meta.id)
    assert found.meta.state == PENDING
    assert [condition.message for condition in found.meta.conditions] == [
        "it is wanted running and its agent sees it stopped; start or stop it to have the agent try again"
    ]
    start = site.client.instances.begin("start", web.meta.id).operation_id
    assert phase(site, start) == operation_pb2.PHASE_RUNNING
    (again,) = host.store_batch()
    assert (again.id, again.generation) == (web.meta.id, 2)
    host.report(web.meta.id, instance_status(RUNNING), APPLIED, 2)
    assert (phase(site, start), state(site, web)) == (operation_pb2.PHASE_DONE, READY)


def test_a_failure_of_an_older_generation_does_not_end_the_newer(
    site: Site, host: ReportingHost, web: instance_pb2.Instance
) -> None:
    host.report(web.meta.id, instance_status())
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    host.store_batch()
    host.report(web.meta.id, instance_status(), FAILED, 1, message="the disk is gone")
    found = site.client.instances.get(web.meta.id)
    assert (found.meta.state, list(found.meta.conditions)) == (PENDING, [])
    assert phase(site, stop) == operation_pb2.PHASE_RUNNING
    host.report(web.meta.id, instance_status(), FAILED, 2, message="it does not stop")
    assert (state(site, web), phase(site, stop)) == (ERROR, operation_pb2.PHASE_FAILED)
    host.report(web.meta.id, instance_status(), APPLIED, 1)
    assert state(site, web) == ERROR, "and its success does not mend the newer"


def test_only_a_guest_that_is_off_at_the_current_generation_changes_the_wanted_power(
    site: Site, host: ReportingHost, web: instance_pb2.Instance
) -> None:
    def wanted() -> int:
        return int(site.client.instances.get(web.meta.id).power)

    host.report(web.meta.id, instance_status(RUNNING, by_guest=True))
    host.report(web.meta.id, instance_status(RUNNING, by_guest=True), APPLIED, 10**15)
    host.report(web.meta.id, instance_status(STOPPED, by_guest=True), WORKING)
    assert wanted() == RUNNING
    site.client.instances.begin_update(instance_pb2.Instance(meta=web.meta, description="new"), ["description"])
    host.store_batch()
    host.report(web.meta.id, instance_status(STOPPED, by_guest=True), APPLIED, 1)
    assert wanted() == RUNNING
    string = instance_status(STOPPED)
    string.meta.conditions.add(type="GuestPoweredOff", reason="GUEST_POWERED_OFF")  # type: ignore[attr-defined]
    host.report(web.meta.id, string, APPLIED, 2)
    assert wanted() == RUNNING, "a condition is for people"
    host.report(web.meta.id, instance_status(STOPPED, by_guest=True), APPLIED, 2)
    assert wanted() == STOPPED
    (stopped,) = host.store_batch()
    host.report(web.meta.id, instance_status(STOPPED, by_guest=True), APPLIED, stopped.generation)
    assert state(site, web) == READY
    site.client.instances.begin("start", web.meta.id)
    (started,) = host.store_batch()
    host.report(web.meta.id, instance_pb2.Instance(), APPLIED, started.generation)
    assert (wanted(), state(site, web)) == (RUNNING, PENDING), "what was said of an earlier generation is over"


def test_a_network_that_fails_on_a_host_shows_it_with_the_hosts_agent_until_it_works(
    site: Site, host: ReportingHost
) -> None:
    def conditions() -> list[tuple[str, str, str]]:
        found = site.client.vnets.get(site.vnet.meta.id).meta.conditions
        return [(condition.type, condition.message, condition.agent) for condition in found]

    agent, name = site.agent.meta.id, site.agent.name
    host.report(site.vnet.meta.id, vnet_pb2.Vnet(), FAILED, message="bridge br0 is missing")
    assert conditions() == [("Failed", f"agent {name}: bridge br0 is missing", agent)]
    host.report(site.vnet.meta.id, vnet_pb2.Vnet(), WAITING, message="waits for br0")
    assert conditions() == [("Waiting", f"agent {name}: waits for br0", agent)]
    host.report(site.vnet.meta.id, vnet_pb2.Vnet(), APPLIED)
    assert conditions() == []
    assert site.client.vnets.get(site.vnet.meta.id).meta.state == READY


def test_a_problem_that_ends_before_it_is_stored_ends_all_the_same(
    site: Site, host: ReportingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "STORE_INTERVAL_S", 0.3)  # both in one transaction
    for outcome in (FAILED, APPLIED):
        report = fleet_pb2.Report(id=site.vnet.meta.id, observed_generation=1, outcome=outcome)
        report.resource.CopyFrom(resources.pack(vnet_pb2.Vnet()))
        host.stream.send(reports=fleet_pb2.Reports(reports=[report]))
    host.settle()
    assert not site.client.vnets.get(site.vnet.meta.id).meta.conditions


def test_a_problem_of_an_earlier_session_ends_with_the_first_good_report(
    site: Site, host: ReportingHost, dial: Dial
) -> None:
    host.report(site.vnet.meta.id, vnet_pb2.Vnet(), FAILED, message="bridge br0 is missing")
    host.stream.close()
    again = ReportingHost(site, dial(site.secret))
    assert site.client.vnets.get(site.vnet.meta.id).meta.conditions
    again.report(site.vnet.meta.id, vnet_pb2.Vnet())
    assert not site.client.vnets.get(site.vnet.meta.id).meta.conditions


def test_a_network_that_fails_on_two_hosts_names_both_and_one_that_has_left_no_more(
    site: Site, host: ReportingHost, dial: Dial
) -> None:
    other, secret = site.cloud.add_agent("agent-2")
    record = site.cloud.add_host(site.zone, "host-2", other.meta.id)
    stream = dial(secret)
    stream.sign_in()
    stream.ack(stream.batch())
    report = fleet_pb2.Report(id=site.vnet.meta.id, observed_generation=1, outcome=FAILED, message="no bridge")
    report.resource.CopyFrom(resources.pack(vnet_pb2.Vnet()))
    stream.send(reports=fleet_pb2.Reports(reports=[report]))

    def agents() -> list[str]:
        return [condition.agent for condition in site.client.vnets.get(site.vnet.meta.id).meta.conditions]

    until(lambda: agents() == [other.meta.id], what="the first")
    host.report(site.vnet.meta.id, vnet_pb2.Vnet(), FAILED, message="no bridge either")
    assert agents() == [other.meta.id, site.agent.meta.id]
    record.agent = ""
    site.client.kaktuses.begin_update(record, ["agent"])
    host.report(site.vnet.meta.id, vnet_pb2.Vnet(), WAITING, message="tries again")
    assert agents() == [site.agent.meta.id]


def test_the_deletion_of_a_network_says_which_agent_fails_to_remove_it(site: Site, host: ReportingHost) -> None:
    dmz = site.client.vnets.create(vnet_pb2.Vnet(region=site.region.meta.id, name="dmz"))
    host.store_batch()
    deletion = site.client.vnets.begin_delete(dmz.meta.id).operation_id
    host.store_batch()
    host.report(dmz.meta.id, vnet_pb2.Vnet(), FAILED, 2, message="the bridge is busy")
    assert site.client.operations.get(deletion).message == f"agent {site.agent.name}: the bridge is busy"
    host.report(dmz.meta.id, vnet_pb2.Vnet(), APPLIED, 2, gone=True)
    assert phase(site, deletion) == operation_pb2.PHASE_DONE


def test_an_adapter_that_fails_shows_it(site: Site, host: ReportingHost, web: instance_pb2.Instance) -> None:
    host.report(web.adapters[0], adapter_pb2.Adapter(), FAILED, message="no tap")
    (condition,) = site.client.adapters.get(web.adapters[0]).meta.conditions
    assert (condition.type, condition.message) == ("Failed", f"agent {site.agent.name}: no tap")


@pytest.mark.parametrize("outcome", [0, 77, -1])
def test_an_unknown_outcome_is_dropped(
    site: Site, host: ReportingHost, web: instance_pb2.Instance, outcome: int
) -> None:
    host.report(web.meta.id, instance_status(), outcome)
    assert (state(site, web), host.dropped()) == (PENDING, {"BAD_OUTCOME": 1})


def test_a_time_in_a_report_is_not_read(site: Site, host: ReportingHost, web: instance_pb2.Instance) -> None:
    reported = instance_status()
    condition = reported.meta.conditions.add(type="RestartRequired")  # type: ignore[attr-defined]
    condition.transition_time.seconds = 1 << 60
    host.report(web.meta.id, reported)
    found = site.client.instances.get(web.meta.id).meta
    assert found.conditions[0].transition_time.seconds < found.create_time.seconds + 3600


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (None, "BAD_KIND"),
        (volume_pb2.Volume(), "BAD_KIND"),
        (Packed(type_url="type.googleapis.com/kowa.v2.Nonsense"), "BAD_KIND"),
        (Packed(type_url="type.googleapis.com/kowa.v2.Instance", value=b"\xff"), "UNREADABLE"),
    ],
)
def test_a_resource_of_another_kind_or_none_is_dropped(
    site: Site, host: ReportingHost, web: instance_pb2.Instance, resource: Message | None, reason: str
) -> None:
    host.report(web.meta.id, resource)
    assert (state(site, web), host.dropped()) == (PENDING, {reason: 1})


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def test_what_is_dropped_is_shown_with_the_agent_and_logged_once_for_each_reason(
    site: Site, logged: list[Any], host: ReportingHost, web: instance_pb2.Instance, dial: Dial
) -> None:
    def shown() -> list[tuple[str, int, str]]:
        status = site.client.agents.get(site.agent.meta.id).status
        return [(found.reason, found.count, found.message) for found in status.dropped_reports]

    for _ in range(3):
        host.report(web.meta.id, instance_status(), 77)
    host.report(web.meta.id, volume_pb2.Volume())
    expected = [
        ("BAD_KIND", 1, f"instance {web.meta.id}: resource is kowa.v2.Volume instead of kowa.v2.Instance"),
        ("BAD_OUTCOME", 3, f"instance {web.meta.id}: outcome is 77, which is none of its values"),
    ]
    until(lambda: shown() == expected, what="the dropped reports")
    warned = [entry["reason"] for entry in logged if entry["event"] == "report.dropped"]
    assert warned == ["BAD_OUTCOME", "BAD_KIND"]
    host.stream.close()
    ReportingHost(site, dial(site.secret))
    assert shown() == [], "a new session starts anew"


def test_an_honest_agent_has_no_report_dropped(site: Site) -> None:
    site.connect_host(FakeWorker())
    web = site.client.instances.create(site.wanted("web"))
    for verb in ("stop", "start"):
        site.client.operations.wait(site.client.instances.begin(verb, web.meta.id).operation_id, 60)
    site.client.operations.wait(site.client.instances.begin_delete(web.meta.id).operation_id, 60)
    with pytest.raises(errors.NotFound):
        site.client.instances.get(web.meta.id)
    session = site.cloud.kahuna.fleet.sessions[site.agent.meta.id]
    assert set(session.dropped) <= {"OUTSIDE_SLICE"}
