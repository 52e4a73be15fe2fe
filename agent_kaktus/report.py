"""What Kahuna is told of each object."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from agent_kaktus.actual import Power
from agent_kaktus.desired import Card, Host, Machine, Passive, Pool, Range, Segment, Template, Thing, Volume
from agent_kaktus.memory import MOST_ATTEMPTS
from agent_kaktus.view import Plan, Remark, Verdict, View
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import (
    adapter_pb2,
    instance_pb2,
    kaktus_pb2,
    meta_pb2,
    storage_pool_pb2,
    subnet_pb2,
    template_pb2,
    vnet_pb2,
    volume_pb2,
)

GRAIN = 16 << 20  # bytes: what is free, and what is taken, is told no finer, or each look would be news
_POWERS = {
    Power.RUNNING: instance_pb2.POWER_RUNNING,
    Power.PAUSED: instance_pb2.POWER_SUSPENDED,
    Power.STUCK: instance_pb2.POWER_SUSPENDED,
    Power.ASLEEP: instance_pb2.POWER_SUSPENDED,
    Power.PANICKED: instance_pb2.POWER_STOPPED,
    Power.OFF: instance_pb2.POWER_STOPPED,
}
_MESSAGES: dict[type[Thing], type[Message]] = {
    Host: kaktus_pb2.Kaktus,
    Pool: storage_pool_pb2.StoragePool,
    Template: template_pb2.Template,
    Volume: volume_pb2.Volume,
    Segment: vnet_pb2.Vnet,
    Range: subnet_pb2.Subnet,
    Card: adapter_pb2.Adapter,
    Machine: instance_pb2.Instance,
}


class Reports:
    """Makes reports; the same for the same facts, so that telling them again costs nothing."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._last: dict[str, Message] = {}

    def all(self, view: View, plan: Plan) -> Iterable[fleet_pb2.Report]:
        for thing in view.desired.things():
            yield self.one(view, thing, plan.verdicts[thing.id], plan.strangers)
        for id_ in self._last.keys() - plan.verdicts.keys():
            del self._last[id_]

    def one(self, view: View, thing: Thing, verdict: Verdict, strangers: tuple[str, ...] = ()) -> fleet_pb2.Report:
        outcome, message = _outcome(view, thing, verdict)
        applied, failed = fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_FAILED
        if outcome == applied:
            view.memory.applied[thing.id] = thing.generation
        is_settled = outcome in (applied, failed)
        report = fleet_pb2.Report(
            id=thing.id,
            observed_generation=thing.generation if is_settled else view.memory.applied.get(thing.id, 0),
            gone=verdict.gone,
            outcome=outcome,
            message=message,
        )
        resource: Any = _empty(thing)
        if not verdict.gone:
            self._fill(view, thing, resource, strangers)
            resource.meta.conditions.extend(_condition(remark) for remark in verdict.remarks)
            self._last[thing.id] = resource
        report.resource.CopyFrom(resources.pack(resource))
        return report

    def away(self, view: View, reason: str) -> Iterable[fleet_pb2.Report]:
        """While nothing is known of the host: what was known last, of machines without whether they run.

        What asks nothing of the host is as wanted, for all that.
        """
        for thing in view.desired.things():
            if isinstance(thing, Passive):
                yield self.one(view, thing, Verdict(gone=thing.gone))
                continue
            report = fleet_pb2.Report(
                id=thing.id,
                observed_generation=view.memory.applied.get(thing.id, 0),
                outcome=fleet_pb2.OUTCOME_WAITING,
                message=reason,
            )
            resource = _empty(thing)
            resource.MergeFrom(self._last.get(thing.id, resource))
            resource.ClearField("meta")
            if isinstance(resource, instance_pb2.Instance):
                resource.status.power = instance_pb2.POWER_UNSPECIFIED
            report.resource.CopyFrom(resources.pack(resource))
            yield report

    def _fill(self, view: View, thing: Thing, resource: Any, strangers: tuple[str, ...]) -> None:
        match thing:
            case Host():
                resource.status.CopyFrom(self._host(view, strangers))
            case Pool() if seen := view.actual.pools.get(thing.id):
                resource.status.CopyFrom(
                    storage_pool_pb2.StoragePoolStatus(capacity=seen.capacity, available=_coarse(seen.available))
                )
            case Template():
                resource.status.CopyFrom(_template(view, thing))
            case Volume() if image := view.actual.images.get(thing.id):
                resource.status.CopyFrom(volume_pb2.VolumeStatus(size=image.size, allocation=_coarse(image.allocation)))
            case Machine():
                resource.status.CopyFrom(_machine(view, thing))

    def _host(self, view: View, strangers: tuple[str, ...]) -> kaktus_pb2.KaktusStatus:
        facts = view.actual.facts
        return kaktus_pb2.KaktusStatus(
            cpus=facts.cpus,
            memory=facts.memory,
            hypervisor=f"{facts.version} ({view.site.accelerator})",
            version=self._version,
            architecture=facts.architecture,
            strangers=strangers,
        )


def _outcome(view: View, thing: Thing, verdict: Verdict) -> tuple[fleet_pb2.Outcome, str]:
    trouble = view.memory.troubles.get(thing.id)
    if verdict.steps and trouble:
        if trouble.attempts >= MOST_ATTEMPTS:
            return fleet_pb2.OUTCOME_FAILED, trouble.reason
        return fleet_pb2.OUTCOME_WAITING, f"tries again: {trouble.reason}"
    if verdict.steps:
        return fleet_pb2.OUTCOME_WORKING, str(verdict)
    if verdict.works:
        return fleet_pb2.OUTCOME_WORKING, verdict.works
    if verdict.waits:
        return fleet_pb2.OUTCOME_WAITING, f"waits for {verdict.waits}"
    if verdict.fails:
        return fleet_pb2.OUTCOME_FAILED, verdict.fails
    return fleet_pb2.OUTCOME_APPLIED, ""


def _condition(remark: Remark) -> meta_pb2.Condition:
    """Kahuna adds since when, and its own words on what waits or failed."""
    return meta_pb2.Condition(type=remark.type, reason=remark.reason, message=remark.message)


def _coarse(size: int) -> int:
    return size // GRAIN * GRAIN


def _empty(thing: Thing) -> Message:
    """A resource of a thing's kind."""
    return thing.kind() if isinstance(thing, Passive) else _MESSAGES[type(thing)]()


def _template(view: View, thing: Template) -> template_pb2.TemplateStatus:
    image = view.actual.images.get(thing.id)
    if image is None:
        return template_pb2.TemplateStatus(progress=view.memory.importing.get(thing.id, 0))
    return template_pb2.TemplateStatus(size=image.size, format=image.format, progress=100)


def _machine(view: View, thing: Machine) -> instance_pb2.InstanceStatus:
    found = view.actual.domains.get(thing.id)
    cards = (view.desired.cards.get(id_) for id_ in thing.cards)
    return instance_pb2.InstanceStatus(
        power=_POWERS[found.power if found else Power.OFF],
        addresses=[str(card.address) for card in cards if card],
        restarts=view.memory.restarts_lately(thing, view.now),
    )
