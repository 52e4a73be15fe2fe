"""What a machine needs. Pure."""

from dataclasses import replace

from agent_kaktus import seed
from agent_kaktus.actual import FORM, Domain, Mark, Power
from agent_kaktus.compute import domain
from agent_kaktus.desired import Card, Machine, Missing, Outfit
from agent_kaktus.network import plan as network
from agent_kaktus.steps import (
    CutPower,
    Define,
    Guard,
    Note,
    RemoveSeed,
    Resume,
    Shutdown,
    Start,
    Step,
    Suspend,
    Undefine,
    WriteSeed,
)
from agent_kaktus.storage import plan as storage
from agent_kaktus.view import GONE, Remark, Verdict, View
from kowa.v2 import instance_pb2

ROOM_TO_GO_ON = 64 << 20  # bytes a pool must have free before a machine that ran out of them is resumed

RESTART_REQUIRED = Remark(
    "RestartRequired",
    "DEFINITION_CHANGED",
    "It runs as it was before the last change; stop and start it to apply that.",
)
LEFT = Remark(
    "GuestPoweredOff", "GUEST_POWERED_OFF", "It was switched off from inside, and stays off until it is started again."
)


def machine(view: View, wanted: Machine) -> Verdict:
    found = view.actual.domains.get(wanted.id)
    if wanted.gone:
        return _gone(view, wanted, found)
    if stranger := view.actual.others.get(wanted.id):
        return Verdict(waits=f"domain {stranger.name}, which has its id and does not bear our mark")
    try:
        outfit = view.desired.outfit(wanted)
        waits = _why_not(view, wanted, outfit)
    except Missing as missing:
        return _wait(view, wanted, found, str(missing))
    return _wait(view, wanted, found, waits) if waits else _fit(view, wanted, outfit, found)


def _wait(view: View, wanted: Machine, found: Domain | None, reason: str) -> Verdict:
    """What it waits for keeps it from being started, not from being stopped or guarded."""
    guards = () if view.actual.unguarded else _guards(view, wanted, found)
    return _power_down(view, wanted, found) or Verdict(guards, waits=reason)


def _fit(view: View, wanted: Machine, outfit: Outfit, found: Domain | None) -> Verdict:
    mark = _mark(view, wanted, outfit, found)
    steps = tuple(_prepare(view, wanted, outfit, found, mark))
    if wanted.power == instance_pb2.POWER_STOPPED:
        down = _power_down(view, wanted, found)
        if down:
            return down  # what else there is to do has time until it is off, and must not hold it up
        return Verdict(steps, remarks=(LEFT,) if found and found.left_at(mark.ran) else ())
    remarks = (RESTART_REQUIRED,) if _runs_an_older(found, mark) else ()
    if found is None or not found.is_on:
        return _power_up(view, wanted, outfit, mark, steps, found)
    if found.power is Power.PANICKED:
        return Verdict((*steps, CutPower(wanted)))  # then it is off, without having been asked to, and is started again
    if found.power is Power.STUCK and _is_full(view, outfit):
        return Verdict(steps, fails="" if steps else "paused, since a disk could not be written: its pool is full")
    if wanted.id in view.memory.stopping:
        return Verdict(steps, works="" if steps else "it is still shutting down")
    return Verdict((*steps, *_keep_up(view, wanted, outfit, found, mark)), remarks=remarks)


def _prepare(view: View, wanted: Machine, outfit: Outfit, found: Domain | None, mark: Mark) -> list[Step]:
    steps: list[Step] = []
    if view.actual.seeds.get(wanted.id) != seed.digest(view.site, wanted, outfit):
        steps.append(WriteSeed(wanted, outfit))
    defined = found.mark if found and found.persistent else None
    if defined is None or (defined.digest, defined.form) != (mark.digest, mark.form):
        steps.append(Define(wanted, outfit, mark, again=found is not None))
    return steps


def _power_up(
    view: View, wanted: Machine, outfit: Outfit, mark: Mark, steps: tuple[Step, ...], found: Domain | None
) -> Verdict:
    if found is not None and found.left_at(wanted.generation):
        return Verdict(steps, remarks=(LEFT,))
    ran = mark.ran == wanted.generation
    if found is not None and found.left and ran and not mark.asked:
        # Told once it is noted: whoever is told may want it stopped at once, and then it is too late to tell why.
        return Verdict((*steps, Note(wanted, replace(mark, rests=wanted.generation))))
    if ran and view.memory.crashes_too_often(wanted):
        return Verdict(fails="it stopped by itself 5 times within 10 minutes; see its console, then change or start it")
    up: list[Step] = [Start(wanted, again=ran and not mark.asked)]
    if not ran or mark.asked:
        # Before it runs, or one that ends at once would never count. Not before it is started: until then libvirt may
        # still say how its last life ended.
        up.append(Note(wanted, replace(mark, ran=wanted.generation, asked=0)))
    if outfit.ports:
        up.append(Guard(wanted, _cards(outfit)))
    if wanted.power == instance_pb2.POWER_RUNNING:
        up.append(Resume(wanted))
    return Verdict((*steps, *up))


def _keep_up(view: View, wanted: Machine, outfit: Outfit, found: Domain, mark: Mark) -> list[Step]:
    steps: list[Step] = []
    if not all(network.is_guarded(view, port.card) for port in outfit.ports):
        steps.append(Guard(wanted, _cards(outfit)))
    is_held = wanted.power == instance_pb2.POWER_SUSPENDED
    if is_held and found.power is Power.RUNNING:
        steps.append(Suspend(wanted))
    if not is_held and found.power is not Power.RUNNING:
        steps.append(Resume(wanted))
    if mark.ran != wanted.generation:
        steps.append(Note(wanted, replace(mark, ran=wanted.generation)))
    return steps


def _power_down(view: View, wanted: Machine, found: Domain | None) -> Verdict | None:
    """What stopping it takes, whatever it refers to. None if it is not to be stopped, or is off."""
    if wanted.power != instance_pb2.POWER_STOPPED or found is None or not found.is_on:
        return None
    asked = view.memory.stopping.get(wanted.id)
    if found.power in (Power.STUCK, Power.ASLEEP, Power.PANICKED) or (
        asked is not None and view.now - asked >= view.site.shutdown_limit
    ):
        return Verdict((CutPower(wanted),))
    if found.power is Power.PAUSED:
        return Verdict((*_guards(view, wanted, found), Resume(wanted)))
    note: tuple[Step, ...] = ()
    if found.persistent and found.mark is not None and found.mark.asked != wanted.generation:
        note = (Note(wanted, replace(found.mark, asked=wanted.generation)),)
    if asked is not None and not note:
        return Verdict(works="it is shutting down")
    return Verdict((Shutdown(wanted), *note))


def _guards(view: View, wanted: Machine, found: Domain | None) -> tuple[Step, ...]:
    """Of the cards that it has; those that go too, for it has them still."""
    if found is None or not found.is_on:
        return ()
    cards = (view.desired.cards.get(id_) for id_ in wanted.cards)
    plugged = tuple(card for card in cards if card and card.tap in view.actual.links)
    return () if all(network.is_guarded(view, card) for card in plugged) else (Guard(wanted, plugged),)


def _gone(view: View, wanted: Machine, found: Domain | None) -> Verdict:
    steps: list[Step] = []
    if found is not None:
        if found.is_on:
            steps.append(CutPower(wanted))
        steps.append(Undefine(wanted))
    if wanted.id in view.actual.seeds:
        steps.append(RemoveSeed(wanted))
    return Verdict(tuple(steps)) if steps else GONE


def _mark(view: View, wanted: Machine, outfit: Outfit, found: Domain | None) -> Mark:
    """The mark the machine's definition shall bear; what it says of the past is kept."""
    digest = domain.digest(view.site, wanted, outfit)
    past = found.mark if found and found.mark else Mark(wanted.id, digest)
    return replace(past, digest=digest, form=FORM)


def _why_not(view: View, wanted: Machine, outfit: Outfit) -> str:
    """What a machine waits for before anything of it is made or started; empty if for nothing."""
    reasons = [storage.why_no_disk(view, volume) for volume in outfit.disks]
    reasons += [network.why_no_bridge(view, port.segment) for port in outfit.ports]
    reasons += [network.why_not_plugged(view, port) for port in outfit.ports]
    if outfit.ports and view.actual.unguarded and wanted.power != instance_pb2.POWER_STOPPED:
        reasons.append(f"guards for its cards: {view.actual.unguarded}")
    return next((reason for reason in reasons if reason), "")


def _runs_an_older(found: Domain | None, mark: Mark) -> bool:
    return found is not None and found.is_on and found.running_digest != mark.digest


def _is_full(view: View, outfit: Outfit) -> bool:
    pools = (view.actual.pools.get(volume.pool) for volume in outfit.disks)
    return any(pool is not None and pool.available < ROOM_TO_GO_ON for pool in pools)


def _cards(outfit: Outfit) -> tuple[Card, ...]:
    return tuple(port.card for port in outfit.ports)
