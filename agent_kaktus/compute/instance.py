"""Instances: their plan, which is pure, and their status."""

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field, replace
from functools import partial

from agent_kaktus.actual import DEFINITION_VERSION, Domain, Mark, Power
from agent_kaktus.compute import domain, seed
from agent_kaktus.compute.desired import Devices, Instance, devices_of
from agent_kaktus.kind import Kind, View
from agent_kaktus.network.adapter import Adapter, is_filtered, put_filters, why_address_conflicts
from agent_kaktus.network.vnet import why_no_bridge
from agent_kaktus.storage.volume import why_no_disk
from kowa import formats
from kowa.runtime.desired import Identity, MissingReference
from kowa.runtime.notes import Generation, Notes
from kowa.runtime.verdict import GONE, Step, Verdict
from kowa.v2 import instance_pb2
from kowa.v2.meta_pb2 import Condition

MAX_RESTARTS = 5
RESTART_WINDOW_S = 600.0
MIN_MEMORY_BYTES = 1 << 20
MIN_FREE_BYTES = 64 << 20  # in a pool, before an instance that was paused by the full pool is resumed

RESTART_REQUIRED = Condition(
    type="RestartRequired",
    reason="DEFINITION_CHANGED",
    message="It runs as it was before the last change; stop and start it to apply that.",
)
POWERED_OFF = Condition(
    type="GuestPoweredOff",
    reason="GUEST_POWERED_OFF",
    message="It was switched off from inside, and stays off until it is started again.",
)
_POWERS = {
    Power.RUNNING: instance_pb2.POWER_RUNNING,
    Power.PANICKED: instance_pb2.POWER_STOPPED,
    Power.OFF: instance_pb2.POWER_STOPPED,
}  # all others are suspended


@dataclass(slots=True)
class PowerNotes:
    """When shutdowns were requested, and instances restarted after a crash, in seconds of the reconciler's clock."""

    stopping: dict[str, float] = field(default_factory=dict)  # instance -> when its shutdown was requested
    restarts: dict[Generation, tuple[float, ...]] = field(default_factory=dict)

    def restarts_of(self, instance: Instance) -> tuple[float, ...]:
        """The times at which its present generation was restarted after a crash."""
        return self.restarts.get((instance.id, instance.generation), ())

    def crashes_too_often(self, instance: Instance) -> bool:
        """Whether the last restarts were too close to each other. Stays true until its generation changes."""
        last = self.restarts_of(instance)[-MAX_RESTARTS:]
        return len(last) == MAX_RESTARTS and last[-1] - last[0] <= RESTART_WINDOW_S

    def count_recent_restarts(self, instance: Instance, now: float) -> int:
        return sum(now - time <= RESTART_WINDOW_S for time in self.restarts_of(instance))

    def note_restart(self, instance: Instance, now: float) -> None:
        self.restarts[instance.id, instance.generation] = (*self.restarts_of(instance), now)[-MAX_RESTARTS:]

    def note_running(self, instance: Instance, now: float) -> None:
        """Clears the restarts of an instance that has run for a whole RESTART_WINDOW_S."""
        if self.restarts_of(instance) and not self.count_recent_restarts(instance, now):
            del self.restarts[instance.id, instance.generation]

    def note_stopping(self, instance: Instance, now: float) -> None:
        """Starts the time in which an instance that is to stop can shut down by itself."""
        if instance.is_to_stop:
            self.stopping.setdefault(instance.id, now)

    def keep_only(self, ids: Set[str]) -> None:
        for id_ in self.stopping.keys() - ids:
            del self.stopping[id_]
        for key in [key for key in self.restarts if key[0] not in ids]:
            del self.restarts[key]


class Instances(Kind[Instance]):
    message, value = instance_pb2.Instance, Instance

    def parse(self, identity: Identity, sent: instance_pb2.Instance) -> Instance:
        power = sent.power or instance_pb2.POWER_RUNNING
        if power not in instance_pb2.Power.values():
            raise ValueError(f"power {power} is not known")
        if not formats.DNS_LABEL.fullmatch(sent.name):
            raise ValueError(f"name {sent.name!r} can't be a host name")
        if sent.vcpus < 1 or sent.memory < MIN_MEMORY_BYTES:
            raise ValueError(f"{sent.vcpus} vCPUs and {sent.memory} bytes of memory make no instance")
        return Instance(
            *identity, sent.vcpus, sent.memory, power, tuple(sent.volumes), tuple(sent.adapters),
            sent.user_data, tuple(sorted(sent.metadata.items())), tuple(sent.ssh_keys), sent.project,
        )  # fmt: skip

    def plan(self, view: View, wanted: Instance) -> Verdict:
        found = view.actual.domains.get(wanted.id)
        if wanted.gone:
            return _plan_gone(view, wanted, found)
        if stranger := view.actual.foreign_domains.get(wanted.id):
            return Verdict(waits=f"domain {stranger.name}, which has its id and does not bear our mark")
        try:
            devices = devices_of(view.config, view.desired, wanted)
            reason = _why_not_ready(view, wanted, devices)
        except MissingReference as missing:
            reason = str(missing)
        return _plan_waiting(view, wanted, found, reason) if reason else _plan_ready(view, wanted, devices, found)

    def fill_status(self, view: View, wanted: Instance, resource: instance_pb2.Instance) -> None:
        found = view.actual.domains.get(wanted.id)
        adapters = (view.desired.of(Adapter).get(id_) for id_ in wanted.adapters)
        resource.status.power = _POWERS.get(found.power if found else Power.OFF, instance_pb2.POWER_SUSPENDED)
        resource.status.addresses.extend(str(adapter.address) for adapter in adapters if adapter)
        ran_at = found.mark.ran_at if found and found.mark else 0
        resource.status.guest_powered_off = bool(found and found.was_powered_off_at(ran_at))
        resource.status.restarts = view.notes.of(PowerNotes).count_recent_restarts(wanted, view.now)

    def clear_unseen(self, resource: instance_pb2.Instance) -> None:
        """Clears the power state, which is not known while the host can't be observed."""
        resource.status.power = instance_pb2.POWER_UNSPECIFIED
        resource.status.guest_powered_off = False

    def strangers(self, view: View) -> Iterable[str]:
        known, domains = view.desired.of(Instance), view.actual.domains.values()
        found = (*view.actual.foreign_domains.values(), *(ours for ours in domains if ours.id not in known))
        return [f"domain {domain.name}" for domain in found if not (domain.is_unknown and domain.id in known)]

    def update_notes(self, view: View) -> None:
        """Forgets a shutdown request once the instance is off, or is to run again and the request has timed out."""
        notes, instances = view.notes.of(PowerNotes), view.desired.of(Instance)
        notes.keep_only(instances.keys())
        for id_, requested_at in list(notes.stopping.items()):
            found = view.actual.domains.get(id_)
            is_due = view.now - requested_at >= view.config.shutdown_limit
            if found is None or not found.is_on or (is_due and not instances[id_].is_to_stop):
                del notes.stopping[id_]
        for id_, found in view.actual.domains.items():
            if found.power is Power.RUNNING and id_ in instances:
                notes.note_running(instances[id_], view.now)

    def deadlines(self, view: View) -> Iterable[float]:
        requests = view.notes.of(PowerNotes).stopping.values()
        return [requested_at + view.config.shutdown_limit for requested_at in requests]


def _plan_waiting(view: View, wanted: Instance, found: Domain | None, reason: str) -> Verdict:
    """The verdict on an instance that can't be started for a reason: it is still stopped and its taps filtered."""
    filters = () if view.actual.filters_unseen else _filter_taps(view, wanted, found)
    return _stop(view, wanted, found) or Verdict(filters, waits=reason)


def _plan_ready(view: View, wanted: Instance, devices: Devices, found: Domain | None) -> Verdict:
    mark = _mark(view, wanted, devices, found)
    steps = tuple(_define(view, wanted, devices, found, mark))
    if wanted.is_to_stop:
        if stopping := _stop(view, wanted, found):
            return stopping  # other steps follow once it is off, so that they do not delay that
        return Verdict(steps, conditions=(POWERED_OFF,) if found and found.was_powered_off_at(mark.ran_at) else ())
    if found is None or not found.is_on:
        return _start(view, wanted, devices, mark, steps, found)
    if found.power is Power.PANICKED:
        return Verdict((*steps, _cut_power(wanted)))  # then it is off without a request, and is started again
    if found.power is Power.IO_ERROR and _is_full(view, devices):
        return Verdict(steps, fails="" if steps else "paused, since a disk could not be written: its pool is full")
    if wanted.id in view.notes.of(PowerNotes).stopping:
        return Verdict(steps, working="" if steps else "it is still shutting down")
    conditions = (RESTART_REQUIRED,) if found.running_fingerprint != mark.fingerprint else ()
    return Verdict((*steps, *_keep_running(view, wanted, devices, found, mark)), conditions=conditions)


def _define(view: View, wanted: Instance, devices: Devices, found: Domain | None, mark: Mark) -> list[Step]:
    steps: list[Step] = []
    if view.actual.seeds.get(wanted.id) != seed.fingerprint(view.config, wanted, devices):
        steps.append(Step("seed", wanted.name, lambda host: host.seeds.write(wanted, devices)))
    defined = found.mark if found and found.persistent else None
    if defined is None or (defined.fingerprint, defined.version) != (mark.fingerprint, mark.version):
        definition = partial(domain.definition, view.config, wanted, devices, mark)
        verb = "define" if found is None else "redefine"
        steps.append(Step(verb, wanted.name, lambda host: host.hypervisor.define(wanted.id, definition())))
    return steps


def _start(
    view: View, wanted: Instance, devices: Devices, mark: Mark, steps: tuple[Step, ...], found: Domain | None
) -> Verdict:
    if found is not None and found.was_powered_off_at(wanted.generation):
        return Verdict(steps, conditions=(POWERED_OFF,))
    ran = mark.ran_at == wanted.generation
    if found is not None and found.powered_off and ran and not mark.stop_requested_at:
        # Reported only once the mark is set: a user could react by stopping it, and the reason would be lost.
        return Verdict((*steps, _set_mark(wanted, replace(mark, powered_off_at=wanted.generation))))
    if ran and view.notes.of(PowerNotes).crashes_too_often(wanted):
        return Verdict(fails="it stopped by itself 5 times within 10 minutes; see its console, then change or start it")
    up = [_start_domain(wanted, again=ran and not mark.stop_requested_at)]
    if not ran or mark.stop_requested_at:
        # Before the guest runs, or a crash right after the start would never count. After the start, since until then
        # libvirt reports how the last run ended.
        up.append(_set_mark(wanted, replace(mark, ran_at=wanted.generation, stop_requested_at=0)))
    if devices.attachments:
        up.append(_put_filters(wanted, devices.adapters))
    if wanted.power == instance_pb2.POWER_RUNNING:
        up.append(_resume(wanted))
    return Verdict((*steps, *up))


def _keep_running(view: View, wanted: Instance, devices: Devices, found: Domain, mark: Mark) -> list[Step]:
    steps: list[Step] = []
    if not all(is_filtered(view, adapter) for adapter in devices.adapters):
        steps.append(_put_filters(wanted, devices.adapters))
    is_suspended = wanted.power == instance_pb2.POWER_SUSPENDED
    if is_suspended and found.power is Power.RUNNING:
        steps.append(
            Step("suspend", wanted.name, lambda host: host.hypervisor.suspend(wanted.id), is_interruptible=True)
        )
    if not is_suspended and found.power is not Power.RUNNING:
        steps.append(_resume(wanted))
    if mark.ran_at != wanted.generation:
        steps.append(_set_mark(wanted, replace(mark, ran_at=wanted.generation)))
    return steps


def _stop(view: View, wanted: Instance, found: Domain | None) -> Verdict | None:
    """The verdict that stops an instance, even if its references are missing. None if it is off or is not to stop."""
    if not wanted.is_to_stop or found is None or not found.is_on:
        return None
    requested_at = view.notes.of(PowerNotes).stopping.get(wanted.id)
    if found.power in (Power.IO_ERROR, Power.ASLEEP, Power.PANICKED) or (
        requested_at is not None and view.now - requested_at >= view.config.shutdown_limit
    ):
        return Verdict((_cut_power(wanted),))
    fallback = f"its power is cut {view.config.shutdown_limit:g} s after it was to stop"
    if found.power is Power.PAUSED:
        return Verdict((*_filter_taps(view, wanted, found), _resume(wanted)), fallback=fallback)
    note: tuple[Step, ...] = ()
    if found.persistent and found.mark is not None and found.mark.stop_requested_at != wanted.generation:
        note = (_set_mark(wanted, replace(found.mark, stop_requested_at=wanted.generation)),)
    if requested_at is not None and not note:
        return Verdict(working="it is shutting down")
    shutdown = Step(
        "shutdown",
        wanted.name,
        lambda host: host.hypervisor.shutdown(wanted.id),
        when_due=_note_stopping(wanted),
        is_interruptible=True,
    )
    return Verdict((shutdown, *note), fallback=fallback)


def _filter_taps(view: View, wanted: Instance, found: Domain | None) -> tuple[Step, ...]:
    """Filters the taps that a running instance has, including those of adapters that are being deleted."""
    if found is None or not found.is_on:
        return ()
    adapters = (view.desired.of(Adapter).get(id_) for id_ in wanted.adapters)
    plugged = tuple(adapter for adapter in adapters if adapter and adapter.tap in view.actual.links)
    return () if all(is_filtered(view, adapter) for adapter in plugged) else (_put_filters(wanted, plugged),)


def _plan_gone(view: View, wanted: Instance, found: Domain | None) -> Verdict:
    steps: list[Step] = []
    if found is not None:
        if found.is_on:
            steps.append(_cut_power(wanted))
        steps.append(Step("undefine", wanted.name, lambda host: host.hypervisor.undefine(wanted.id)))
    if wanted.id in view.actual.seeds:
        steps.append(Step("remove seed", wanted.name, lambda host: host.seeds.remove(wanted.id)))
    return Verdict(tuple(steps)) if steps else GONE


def _mark(view: View, wanted: Instance, devices: Devices, found: Domain | None) -> Mark:
    """The mark for a new definition: the generations of past events are kept."""
    fingerprint = domain.fingerprint(view.config, wanted, devices)
    past = found.mark if found and found.mark else Mark(wanted.id, fingerprint)
    return replace(past, fingerprint=fingerprint, version=DEFINITION_VERSION)


def _why_not_ready(view: View, wanted: Instance, devices: Devices) -> str:
    """What an instance waits for before it is defined or started; empty if it is ready."""
    reasons = [why_no_disk(view, volume) for volume, _ in devices.disks]
    reasons += [why_no_bridge(view, attachment.vnet) for attachment in devices.attachments]
    reasons += [why_address_conflicts(view, attachment) for attachment in devices.attachments]
    if devices.attachments and view.actual.filters_unseen and not wanted.is_to_stop:
        reasons.append(f"filters for its adapters: {view.actual.filters_unseen}")
    return next((reason for reason in reasons if reason), "")


def _is_full(view: View, devices: Devices) -> bool:
    pools = (view.actual.pools.get(volume.pool) for volume, _ in devices.disks)
    return any(pool is not None and pool.available < MIN_FREE_BYTES for pool in pools)


def _start_domain(wanted: Instance, *, again: bool) -> Step:
    """Starts a domain paused: the guest runs only once its taps are filtered. `again`: it had stopped by itself."""

    def note_restart(notes: Notes, now: float) -> None:
        if again:
            notes.of(PowerNotes).note_restart(wanted, now)

    name = f"{wanted.name} again" if again else wanted.name
    return Step("start", name, lambda host: host.hypervisor.start(wanted.id), after=note_restart, is_interruptible=True)


def _put_filters(wanted: Instance, adapters: tuple[Adapter, ...]) -> Step:
    """Filters taps, before the guest runs, so that it can send with its own addresses only."""
    return Step("filter taps of", wanted.name, lambda host: put_filters(host, adapters))


def _resume(wanted: Instance) -> Step:
    """Resumes an instance, also before a shutdown, to which a paused guest can't react; its time to stop starts now."""
    return Step(
        "resume",
        wanted.name,
        lambda host: host.hypervisor.resume(wanted.id),
        when_due=_note_stopping(wanted),
        is_interruptible=True,
    )


def _cut_power(wanted: Instance) -> Step:
    return Step("cut power", wanted.name, lambda host: host.hypervisor.cut_power(wanted.id), is_fallback=True)


def _set_mark(wanted: Instance, mark: Mark) -> Step:
    """Records in a domain's mark the generation that ran, was requested to stop, or was switched off by its guest."""
    events = {mark.powered_off_at: "powered off", mark.stop_requested_at: "stopping"}
    name = f"{wanted.name} {events.get(wanted.generation, 'running')}"
    return Step("mark", name, lambda host: host.hypervisor.set_mark(wanted.id, mark), is_interruptible=True)


def _note_stopping(wanted: Instance) -> Callable[[Notes, float], None]:
    return lambda notes, now: notes.of(PowerNotes).note_stopping(wanted, now)
