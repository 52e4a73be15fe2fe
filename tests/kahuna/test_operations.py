"""What an operation says while it is under way, what replaces it, and how it is taken back."""

from typing import Any

import pytest
from sqlmodel import Session, col, select

from kahuna.domain import lifecycle
from kahuna.store.tables import Audit
from kowa import contract, errors
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2, meta_pb2, operation_pb2, region_pb2, template_pb2
from tests.control_plane import ControlPlane, FakeHost
from tests.fleet_resources import edited
from tests.site import Site, make_site
from tests.waiting import until

WAITING, RUNNING, DONE = operation_pb2.PHASE_WAITING, operation_pb2.PHASE_RUNNING, operation_pb2.PHASE_DONE


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not dialled in."""
    return make_site(cloud)


def phase_and_reason(site: Site, operation: str) -> tuple[operation_pb2.Phase, str]:
    """Its phase, and the beginning of what it says."""
    found = site.client.operations.get(operation)
    return found.phase, found.message.partition(":")[0]


def cancel(site: Site, operation: str) -> Any:
    method = contract.load().kinds["Operation"].service.methods["cancel"]
    return site.client.call(method, operation_pb2.CancelOperationRequest(id=operation)).resource


@pytest.mark.slow
def test_an_operation_says_when_its_host_goes_and_when_it_is_back(site: Site) -> None:
    host = FakeHost()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    host.frozen.add("instance")
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    assert phase_and_reason(site, stop) == (RUNNING, "")
    site.cloud.disconnect(agent)
    until(lambda: phase_and_reason(site, stop) == (WAITING, "HOST_OFFLINE"), what="the word that its host is away")
    busy = FakeHost()
    busy.frozen.add("instance")
    site.cloud.dial(site.secret, busy)
    until(lambda: phase_and_reason(site, stop) == (RUNNING, ""), what="the word that its host is back")
    busy.frozen.clear()
    assert site.client.operations.wait(stop, 60).phase == DONE


def test_what_is_under_way_has_a_deadline_by_its_kind_of_work(site: Site) -> None:
    web = site.running_on_lost_host()
    wanted = template_pb2.Template(storage_pool=site.pool.meta.id, name="big", source="big.qcow2", sha256="1" * 64)
    big = site.client.of(template_pb2.Template).begin_create(wanted)
    begun = [site.client.instances.begin(verb, web.meta.id) for verb in ("stop", "reboot")]
    for operation_id, seconds in zip(
        (big.operation_id, *(b.operation_id for b in begun)), (22200, 300, 120), strict=True
    ):
        operation = site.client.operations.get(operation_id)
        assert operation.deadline.ToMicroseconds() - operation.meta.create_time.ToMicroseconds() == seconds * 1_000_000
    at_once = site.client.of(region_pb2.Region).begin_create(region_pb2.Region(name="us")).operation_id
    done = site.client.operations.get(at_once)
    assert (done.phase, done.HasField("deadline")) == (DONE, False)
    soon = site.client.operations.list(filter=f"deadline <= {operation.deadline.ToJsonString()} AND phase = waiting")
    assert [found.method for found in soon] == ["RebootInstance"]
    assert lifecycle.WORK_TIMEOUTS_S.keys() <= {method.name for method in contract.load().methods.values()}


def test_the_same_wish_again_replaces_nothing(site: Site) -> None:
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


def test_a_command_is_not_replaced_by_a_change(site: Site) -> None:
    web = site.running_on_lost_host()
    reset = site.client.instances.begin("reset", web.meta.id).operation_id
    web.description = "renamed meanwhile"
    site.client.instances.begin_update(web, ["description"])
    assert phase_and_reason(site, reset)[0] == WAITING
    back = site.connect_host()
    assert site.client.operations.wait(reset, 60).phase == DONE
    assert back.done == [("reset", web.meta.id)]


@pytest.mark.parametrize("how", ["cancelled", "its machine deleted"])
def test_a_command_taken_back_is_never_sent(site: Site, how: str) -> None:
    web = site.running_on_lost_host()
    reset = site.client.instances.begin("reset", web.meta.id).operation_id
    if how == "cancelled":
        assert cancel(site, reset).phase == operation_pb2.PHASE_CANCELLED
    else:
        site.client.instances.begin_delete(web.meta.id)
        assert phase_and_reason(site, reset)[0] == operation_pb2.PHASE_SUPERSEDED
    host = site.connect_host()
    later = site.instance("db")
    assert site.client.operations.wait(later.operation_id, 60).phase == DONE
    assert host.done == []


def test_a_command_that_was_sent_is_not_cancelled(site: Site) -> None:
    host = site.connect_host()
    host.hangs.set()
    web = site.client.instances.create(site.wanted("web"))
    reset = site.client.instances.begin("reset", web.meta.id).operation_id
    until(lambda: host.done, what="the command to be begun")
    with pytest.raises(errors.Conflict, match="has been sent to its host"):
        cancel(site, reset)
    assert phase_and_reason(site, reset)[0] == RUNNING


def test_who_cancelled_is_in_the_audit_trail(site: Site) -> None:
    web = site.running_on_lost_host()
    stop = site.client.instances.begin("stop", web.meta.id).operation_id
    for _ in range(2):  # an ended one stays as it ended
        assert cancel(site, stop).phase == operation_pb2.PHASE_CANCELLED
    with Session(site.cloud.kahuna.store.engine) as session:
        noted = session.exec(select(Audit).where(Audit.operation == stop).order_by(col(Audit.id))).all()
    assert [(entry.method, entry.target_name) for entry in noted] == [
        ("StopInstance", "web"),
        ("CancelOperation", "web"),
    ]


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_a_stopped_machine_is_neither_suspended_nor_resumed(site: Site, verb: str) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    site.client.instances.stop(web.meta.id)
    with pytest.raises(errors.Conflict, match="start it instead"):
        site.client.instances.begin(verb, web.meta.id)
    assert site.client.instances.get(web.meta.id).power == instance_pb2.POWER_STOPPED


def test_a_power_that_is_not_said_is_running(site: Site) -> None:
    web = site.running_on_lost_host()
    web.power = instance_pb2.POWER_UNSPECIFIED
    assert site.client.instances.begin_update(web, ["power"]).resource.power == instance_pb2.POWER_RUNNING


class Retrying(FakeHost):
    """What it has given up it tries again, as an agent does that was started anew, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, fleet_pb2.Outcome] = {}

    def _report(self, described: fleet_pb2.Object) -> fleet_pb2.Report:
        report = super()._report(described)
        if described.id in self.outcomes:
            # Of what is under way it says the generation that it has applied, which is none.
            report.outcome, report.observed_generation = self.outcomes[described.id], 0
            report.message = f"tries generation {described.generation} again"
            with edited(report) as resource:
                resource.status.restarts = 1
        return report


@pytest.mark.parametrize("outcome", [fleet_pb2.OUTCOME_WORKING, fleet_pb2.OUTCOME_WAITING])
def test_what_was_given_up_is_in_error_until_it_has_come_about(site: Site, outcome: fleet_pb2.Outcome) -> None:
    host = Retrying()
    host.frozen.add("instance")
    site.connect_host(host)
    web = site.instance("web")
    id_ = web.resource.meta.id
    host.failures[id_] = "the disk is gone"
    host.frozen.clear()
    with pytest.raises(errors.OperationFailed, match="the disk is gone"):
        site.client.operations.wait(web.operation_id, 60)
    host.failures.clear()
    host.outcomes[id_] = outcome
    until(lambda: site.client.instances.get(id_).status.restarts, what="the word that it tries again")
    shown = site.client.instances.get(id_).meta
    assert shown.state == meta_pb2.STATE_ERROR
    assert "the disk is gone" in [condition.message for condition in shown.conditions]

    # Whoever asks once more is not told that it is done.
    start = site.client.instances.begin("start", id_).operation_id
    until(lambda: phase_and_reason(site, start)[1] == "tries generation 2 again", what="the word on the new wish")
    assert phase_and_reason(site, start)[0] in (RUNNING, WAITING)
    shown = site.client.instances.get(id_).meta
    assert shown.state == meta_pb2.STATE_PENDING
    assert "the disk is gone" not in [condition.message for condition in shown.conditions]
    host.outcomes.clear()
    assert site.client.operations.wait(start, 60).phase == DONE
    assert site.client.instances.get(id_).meta.state == meta_pb2.STATE_READY


def test_what_was_given_up_and_comes_about_after_all_is_ready(site: Site) -> None:
    host = FakeHost()
    host.frozen.add("instance")
    site.connect_host(host)
    web = site.instance("web")
    host.failures[web.resource.meta.id] = "the disk is away"
    host.frozen.clear()
    with pytest.raises(errors.OperationFailed, match="the disk is away"):
        site.client.operations.wait(web.operation_id, 60)
    host.failures.clear()
    instances = site.client.instances
    until(lambda: instances.get(web.resource.meta.id).meta.state == meta_pb2.STATE_READY, what="READY")
    assert not instances.get(web.resource.meta.id).meta.conditions
