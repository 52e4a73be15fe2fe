"""Operations: their message while they run, what supersedes them, and cancelling."""

from typing import Any

import pytest
from sqlmodel import Session, col, select

from kahuna.domain import lifecycle
from kahuna.kinds import tracking
from kahuna.store.tables import Audit
from kahuna.store.transaction import Transaction
from kowa import contract, errors
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, instance_pb2, meta_pb2, operation_pb2, region_pb2, template_pb2
from tests.control_plane import ControlPlane, FakeWorker
from tests.fleet_resources import edited
from tests.site import Site, make_site
from tests.waiting import until

WAITING, RUNNING, DONE = operation_pb2.PHASE_WAITING, operation_pb2.PHASE_RUNNING, operation_pb2.PHASE_DONE


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


def phase_and_reason(site: Site, operation: str) -> tuple[operation_pb2.Phase, str]:
    """An operation's phase, and the reason code at the start of its message."""
    found = site.client.operations.get(operation)
    return found.phase, found.message.partition(":")[0]


def cancel(site: Site, operation: str) -> Any:
    method = contract.load().kinds["Operation"].service.methods["cancel"]
    return site.client.call(method, operation_pb2.CancelOperationRequest(id=operation)).resource


@pytest.mark.slow
def test_an_operation_waits_while_its_host_is_offline(site: Site) -> None:
    host = FakeWorker()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    host.frozen.add("instance")
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    assert phase_and_reason(site, stop) == (RUNNING, "")
    site.cloud.disconnect(agent)
    until(
        lambda: phase_and_reason(site, stop) == (WAITING, "HOST_OFFLINE"), what="the message that its host is offline"
    )
    busy = FakeWorker()
    busy.frozen.add("instance")
    site.cloud.dial(site.secret, busy)
    until(lambda: phase_and_reason(site, stop) == (RUNNING, ""), what="the operation to run again")
    busy.frozen.clear()
    assert site.client.operations.wait(stop, 60).phase == DONE


def test_only_what_concerns_the_agents_that_have_come_or_gone_is_explained_anew(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = site.add_volume("data").operation_id
    spare, _ = site.cloud.add_agent("agent-2")
    host = site.cloud.add_host(site.zone, "host-2", spare.meta.id)
    explained: list[set[str]] = []
    obstacle = tracking._obstacle

    def record(tx: Transaction, agents: set[str]) -> str:
        explained.append(agents)
        return obstacle(tx, agents)

    def explain(agent: agent_pb2.Agent) -> None:
        site.cloud.loop.run(
            site.cloud.kahuna.store.run(lambda tx: tracking.explain_waiting(tx, agents={agent.meta.id}))
        )

    monkeypatch.setattr(tracking, "_obstacle", record)
    explain(spare)
    host.agent = ""
    site.client.kaktuses.begin_update(host, ["agent"])
    assert {site.agent.meta.id} not in explained
    explain(site.agent)
    assert {site.agent.meta.id} in explained
    assert phase_and_reason(site, waiting) == (WAITING, "HOST_OFFLINE")


def test_a_running_operation_has_a_deadline_by_its_method(site: Site) -> None:
    web = site.running_on_lost_host()
    wanted = template_pb2.Template(storage_pool=site.pool.meta.id, name="big", source="big.qcow2", sha256="1" * 64)
    big = site.client.of(template_pb2.Template).begin_create(wanted)
    started = [site.client.instances.begin(verb, web.meta.id) for verb in ("stop", "reboot")]
    for operation_id, seconds in zip(
        (big.operation_id, *(change.operation_id for change in started)), (22200, 300, 120), strict=True
    ):
        operation = site.client.operations.get(operation_id)
        assert operation.deadline.ToMicroseconds() - operation.meta.create_time.ToMicroseconds() == seconds * 1_000_000
    at_once = site.client.of(region_pb2.Region).begin_create(region_pb2.Region(name="us")).operation_id
    done = site.client.operations.get(at_once)
    assert (done.phase, done.HasField("deadline")) == (DONE, False)
    soon = site.client.operations.list(filter=f"deadline <= {operation.deadline.ToJsonString()} AND phase = waiting")
    assert [found.method for found in soon] == ["RebootInstance"]
    assert lifecycle.WORK_TIMEOUTS_S.keys() <= {method.name for method in contract.load().methods.values()}


def test_a_repeated_change_supersedes_nothing(site: Site) -> None:
    web = site.running_on_lost_host()
    first = site.client.instances.begin("stop", web.meta.id).operation_id
    again = site.client.instances.begin("stop", web.meta.id).operation_id
    assert [phase_and_reason(site, each)[0] for each in (first, again)] == [WAITING, WAITING]
    other = site.client.instances.begin("start", web.meta.id).operation_id
    superseded = operation_pb2.PHASE_SUPERSEDED
    assert [phase_and_reason(site, each)[0] for each in (first, again, other)] == [superseded, superseded, WAITING]
    deletions = [site.client.instances.begin_delete(web.meta.id).operation_id for _ in range(2)]
    assert [phase_and_reason(site, each)[0] for each in (other, *deletions)] == [superseded, WAITING, WAITING]
    site.connect_host()
    assert [site.client.operations.wait(each, 60).phase for each in deletions] == [DONE, DONE]


def test_a_change_does_not_supersede_a_command(site: Site) -> None:
    web = site.running_on_lost_host()
    reset = site.client.instances.begin("reset", web.meta.id).operation_id
    web.description = "renamed meanwhile"
    site.client.instances.begin_update(web, ["description"])
    assert phase_and_reason(site, reset)[0] == WAITING
    host = site.connect_host()
    assert site.client.operations.wait(reset, 60).phase == DONE
    assert host.done == [("reset", web.meta.id)]


@pytest.mark.parametrize("how", ["cancelled", "its instance deleted"])
def test_a_cancelled_or_superseded_command_is_never_sent(site: Site, how: str) -> None:
    web = site.running_on_lost_host()
    reset = site.client.instances.begin("reset", web.meta.id).operation_id
    if how == "cancelled":
        assert cancel(site, reset).phase == operation_pb2.PHASE_CANCELLED
    else:
        site.client.instances.begin_delete(web.meta.id)
        assert phase_and_reason(site, reset)[0] == operation_pb2.PHASE_SUPERSEDED
    host = site.connect_host()
    later = site.add_instance("db")
    assert site.client.operations.wait(later.operation_id, 60).phase == DONE
    assert host.done == []


def test_a_command_that_was_sent_cannot_be_cancelled(site: Site) -> None:
    host = site.connect_host()
    host.hangs.set()
    web = site.client.instances.create(site.wanted("web"))
    reset = site.client.instances.begin("reset", web.meta.id).operation_id
    until(lambda: host.done, what="the start of the command")
    with pytest.raises(errors.Conflict, match="has been sent to its host"):
        cancel(site, reset)
    assert phase_and_reason(site, reset)[0] == RUNNING


def test_cancelling_is_in_the_audit_trail_once(site: Site) -> None:
    web = site.running_on_lost_host()
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    for _ in range(2):  # the second call changes nothing
        assert cancel(site, stop).phase == operation_pb2.PHASE_CANCELLED
    with Session(site.cloud.kahuna.store.engine) as session:
        entries = session.exec(select(Audit).where(Audit.operation == stop).order_by(col(Audit.id))).all()
    assert [(entry.method, entry.target_name) for entry in entries] == [
        ("StopInstance", "web"),
        ("CancelOperation", "web"),
    ]


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_suspending_and_resuming_a_stopped_instance_are_refused(site: Site, verb: str) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    site.client.instances.stop(web.meta.id)
    with pytest.raises(errors.Conflict, match="start it instead"):
        site.client.instances.begin(verb, web.meta.id)
    assert site.client.instances.get(web.meta.id).power == instance_pb2.POWER_STOPPED


def test_an_unspecified_power_becomes_running(site: Site) -> None:
    web = site.running_on_lost_host()
    web.power = instance_pb2.POWER_UNSPECIFIED
    assert site.client.instances.begin_update(web, ["power"]).resource.power == instance_pb2.POWER_RUNNING


class RetryingWorker(FakeWorker):
    """Retries failed objects, as a restarted agent does, and reports that."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, fleet_pb2.Outcome] = {}

    def _report(self, described: fleet_pb2.Object) -> fleet_pb2.Report:
        report = super()._report(described)
        if described.id in self.outcomes:
            # While it retries it reports the generation that it has applied, which is none.
            report.outcome, report.observed_generation = self.outcomes[described.id], 0
            report.message = f"tries generation {described.generation} again"
            with edited(report) as resource:
                resource.status.restarts = 1
        return report


@pytest.mark.parametrize("outcome", [fleet_pb2.OUTCOME_WORKING, fleet_pb2.OUTCOME_WAITING])
def test_a_failed_instance_stays_in_error_while_its_agent_retries(site: Site, outcome: fleet_pb2.Outcome) -> None:
    host = RetryingWorker()
    host.frozen.add("instance")
    site.connect_host(host)
    web = site.add_instance("web")
    id_ = web.resource.meta.id
    host.failures[id_] = "the disk is gone"
    host.frozen.clear()
    with pytest.raises(errors.OperationFailed, match="the disk is gone"):
        site.client.operations.wait(web.operation_id, 60)
    host.failures.clear()
    host.outcomes[id_] = outcome
    until(lambda: site.client.instances.get(id_).status.restarts, what="the report of the retry")
    meta = site.client.instances.get(id_).meta
    assert meta.state == meta_pb2.STATE_ERROR
    assert "the disk is gone" in [condition.message for condition in meta.conditions]

    # A new change is not done either while the agent retries.
    start = site.client.instances.begin("start", id_).operation_id
    until(lambda: phase_and_reason(site, start)[1] == "tries generation 2 again", what="the report on the new change")
    assert phase_and_reason(site, start)[0] in (RUNNING, WAITING)
    meta = site.client.instances.get(id_).meta
    assert meta.state == meta_pb2.STATE_PENDING
    assert "the disk is gone" not in [condition.message for condition in meta.conditions]
    host.outcomes.clear()
    assert site.client.operations.wait(start, 60).phase == DONE
    assert site.client.instances.get(id_).meta.state == meta_pb2.STATE_READY


def test_a_failed_instance_that_is_applied_later_becomes_ready(site: Site) -> None:
    host = FakeWorker()
    host.frozen.add("instance")
    site.connect_host(host)
    web = site.add_instance("web")
    host.failures[web.resource.meta.id] = "the disk is missing"
    host.frozen.clear()
    with pytest.raises(errors.OperationFailed, match="the disk is missing"):
        site.client.operations.wait(web.operation_id, 60)
    host.failures.clear()
    instances = site.client.instances
    until(lambda: instances.get(web.resource.meta.id).meta.state == meta_pb2.STATE_READY, what="READY")
    assert not instances.get(web.resource.meta.id).meta.conditions
