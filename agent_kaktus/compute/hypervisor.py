"""Libvirt, called in threads. After a lost connection the next call opens a new one; until that works, calls raise
LibvirtUnavailable.

A libvirt call to a QEMU that hangs never returns: it is not awaited after a timeout, and until it has returned there
are no further calls for that instance, except to cut its power; nor is its domain observed. Each change of an instance
uses a connection of its own, since a call that hangs slows down all others on its connection.
"""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar
from xml.etree import ElementTree

import libvirt
import structlog

from agent_kaktus.actual import Domain, Mark, Power
from agent_kaktus.compute import domain as definitions
from agent_kaktus.compute.facts import observe_facts
from agent_kaktus.errors import LibvirtUnavailable
from kowa.backoff import Backoff
from kowa.runtime.calls import Calls
from kowa.runtime.errors import StepFailed
from kowa.runtime.tasks import in_thread
from kowa.v2 import kaktus_pb2

T = TypeVar("T")

_CALL_TIMEOUT_S = 60.0
_OPEN_TIMEOUT_S = 10.0  # before a connection is open, no pings detect a libvirt that hangs
_CLOSE_TIMEOUT_S = 3.0
_OBSERVE_TIMEOUT_S = 5.0  # for one domain
# Between attempts to connect: systemd gives up on a libvirtd that it has started 5 times within 10 s.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 10.0
_HOST = ""  # the subject of calls for no instance
_PING_INTERVAL_S = 5
_MAX_LOST_PINGS = 3
# By a domain's state and its reason, or by its state alone; in all other states it runs.
_POWERS = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR): Power.IO_ERROR,
    # It crashed while libvirt was not running, which then does not end it.
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED): Power.PANICKED,
    (libvirt.VIR_DOMAIN_PAUSED, None): Power.PAUSED,
    (libvirt.VIR_DOMAIN_PMSUSPENDED, None): Power.ASLEEP,
    (libvirt.VIR_DOMAIN_SHUTOFF, None): Power.OFF,
    (libvirt.VIR_DOMAIN_CRASHED, None): Power.PANICKED,  # until libvirt has ended it
}
# QEMU's error for an instance whose processor can't continue (a failure of KVM); libvirt only shows it as paused.
_HALTED = "Resetting the Virtual Machine is required"
_CLEARS_KILLED = (
    libvirt.VIR_DOMAIN_EVENT_STARTED,
    libvirt.VIR_DOMAIN_EVENT_SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED,
)
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)

log = structlog.get_logger()


@dataclass(slots=True)
class Walk:
    """An observation of all domains, one after the other, and how far it has come."""

    left_out: Set[str]  # at which earlier ones hang
    last: Mapping[str, Domain]
    found: list[Domain] = field(default_factory=list)
    at: str = ""
    count: int = 0


async def _is_answered(call: "asyncio.Task[None]", walk: Walk) -> bool:
    """Waits for an observation. Returns False when it hangs: for long at one domain, or longer at the list of them."""
    waited_s, count = 0.0, -1
    while not call.done() and (walk.count != count if walk.at else waited_s < _CALL_TIMEOUT_S):
        count = walk.count
        await asyncio.wait({call}, timeout=_OBSERVE_TIMEOUT_S)
        waited_s += _OBSERVE_TIMEOUT_S
    return call.done()


class Hypervisor:
    """One connection to libvirt."""

    def __init__(self, uri: str, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`changed` is called, in any thread, when a domain starts or stops, or the connection is lost."""
        self._uri = uri
        self._changed = changed
        self._calls = Calls("libvirt")
        self._hanging: dict[str, asyncio.Task[None]] = {}  # instance -> the observation that hangs at it
        self._last: dict[str, Domain] = {}  # as last observed
        self._open_lock = asyncio.Lock()
        self._lock = threading.Lock()  # never held during a libvirt call
        self._connection: Any = None
        self._killed: set[str] = set()  # instances whose QEMU was last ended by the host, not by the guest
        self._facts: kaktus_pb2.KaktusStatus | None = None
        self._clock = clock  # in seconds
        self._backoff = Backoff(_FIRST_RETRY_S, _LONGEST_RETRY_S)
        self._retry_at, self._refusal = 0.0, ""  # until then calls fail at once, with the reason of the last attempt

    async def observe(self) -> list[Domain]:
        """Observes all domains, except those that are removed meanwhile.

        A domain at which libvirt hangs is returned as it was last observed, and is left out until that call returns.
        """
        while True:
            if (hanging := self._hanging.get(_HOST)) and not hanging.done():
                raise LibvirtUnavailable(f"libvirt at {self._uri} has not answered an earlier call yet")
            connection = await self._connected()
            walk = Walk({id_ for id_, call in self._hanging.items() if not call.done()}, self._last)
            call = asyncio.create_task(in_thread(self._call_now)(connection, partial(self._observe, walk=walk)))
            if await _is_answered(call, walk):
                call.result()
                self._last = {found.id: found for found in walk.found}
                return walk.found
            self._hanging[walk.at] = call
            call.add_done_callback(partial(self._answered, walk.at))
            log.warning("libvirt.hangs", at=walk.at or "its list of domains")
            self._drop(connection)

    def _answered(self, id_: str, call: "asyncio.Task[None]") -> None:
        """Called when an observation that hung at an instance ends. Nobody awaits it any more."""
        if self._hanging.get(id_) is call:
            del self._hanging[id_]
        if not call.cancelled():
            call.exception()
            self._changed()

    async def facts(self) -> kaktus_pb2.KaktusStatus:
        """Cached after the first call."""
        if self._facts is None:
            self._facts = await self._call(_HOST, observe_facts)
        return self._facts

    async def define(self, id_: str, text: str) -> None:
        await self._call(id_, lambda connection: connection.defineXML(text))

    async def start(self, id_: str) -> None:
        """Starts the domain paused."""
        await self._on(id_, lambda domain: domain.isActive() or domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED))

    async def resume(self, id_: str) -> None:
        await self._on(id_, _resume)

    async def suspend(self, id_: str) -> None:
        await self._on(id_, lambda domain: domain.suspend())

    async def shutdown(self, id_: str) -> None:
        await self._on(id_, lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))

    async def reboot(self, id_: str) -> None:
        """Requests a reboot from the guest, through its agent if it has one, otherwise by ACPI."""
        await self._on(id_, lambda domain: domain.reboot(0))

    async def reset(self, id_: str) -> None:
        await self._on(id_, lambda domain: domain.reset(0))

    async def serial(self, id_: str) -> str:
        """The path of the terminal of a running instance's serial port; empty while there is none."""
        with contextlib.suppress(StepFailed):
            return await self._call(id_, lambda connection: _serial(connection.lookupByUUIDString(id_)))
        return ""

    async def cut_power(self, id_: str) -> None:
        """Ends QEMU. Tried even while a call is overdue: without its QEMU that call returns."""
        await self._on(id_, _power_off, subject=f"power of {id_}")

    async def undefine(self, id_: str) -> None:
        await self._on(id_, lambda domain: domain.undefineFlags(_UNDEFINE))

    async def set_mark(self, id_: str, mark: Mark) -> None:
        """Sets the mark in the definition only: the running domain keeps the fingerprint that it was started with."""
        kind, flags = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        text, prefix, namespace = definitions.bare_mark(mark), definitions.PREFIX, definitions.NAMESPACE
        await self._on(id_, lambda domain: domain.setMetadata(kind, text, prefix, namespace, flags))

    async def resize(self, id_: str, disk: str, size: int) -> None:
        """Sets the size in bytes of a running domain's disk; `disk` is the key of its source."""
        await self._on(id_, lambda domain: _resize(domain, disk, size))

    async def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(StepFailed):
                await self._calls.run("close", partial(in_thread(_close), connection), _CLOSE_TIMEOUT_S)

    async def _on(self, id_: str, verb: Callable[[Any], object], subject: str = "") -> None:
        """Calls a function with an instance's domain, on a connection of its own."""
        await self._connected()  # raises LibvirtUnavailable
        await self._calls.run(
            subject or id_, partial(in_thread(_on_own_connection), self._uri, id_, verb), _CALL_TIMEOUT_S
        )

    async def _call(self, subject: str, verb: Callable[[Any], T]) -> T:
        connection = await self._connected()
        return await self._calls.run(subject, partial(in_thread(self._call_now), connection, verb), _CALL_TIMEOUT_S)

    def _call_now(self, connection: Any, verb: Callable[[Any], T]) -> T:
        try:
            with _as_failed_step():
                return verb(connection)
        except StepFailed as error:
            with contextlib.suppress(libvirt.libvirtError):
                if connection.isAlive():
                    raise
            self._drop(connection)
            raise LibvirtUnavailable(f"libvirt at {self._uri} went away") from error

    async def _connected(self) -> Any:
        async with self._open_lock:
            if (connection := self._connection) is not None:
                return connection
            try:
                if self._clock() < self._retry_at:
                    raise StepFailed(self._refusal)
                return await self._calls.run("connection", in_thread(self._connect), _OPEN_TIMEOUT_S)
            except StepFailed as error:
                raise LibvirtUnavailable(f"libvirt at {self._uri} can't be reached: {error}") from error

    def _connect(self) -> Any:
        """Connects. The connection is stored even if the caller's timeout has passed."""
        _run_event_loop()
        try:
            with _as_failed_step():
                connection = _open(self._uri)
                connection.registerCloseCallback(lambda gone, *_: self._drop(gone), None)
                connection.domainEventRegisterAny(
                    None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle_changed, None
                )
        except StepFailed as error:
            self._refusal, self._retry_at = str(error), self._clock() + self._backoff.next_pause()
            raise
        self._backoff.reset()
        with self._lock:
            self._connection = connection
        log.info("libvirt.connected", uri=self._uri)
        return connection

    def _observe(self, connection: Any, walk: "Walk") -> None:
        for domain in connection.listAllDomains(0):
            id_ = domain.UUIDString()
            if id_ in walk.left_out:
                walk.found.append(_unseen(walk.last.get(id_) or Domain(id_, domain.name(), is_unknown=True)))
                continue
            walk.at, walk.count = id_, walk.count + 1
            try:
                walk.found.append(_observe_domain(domain, self._killed))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # which means: removed meanwhile
                    raise

    def _lifecycle_changed(self, _: Any, domain: Any, event: int, detail: int, __: object) -> None:
        """Called when a domain has started or stopped. Only this event distinguishes a killed QEMU from a guest's own
        power-off: afterwards libvirt reports the same state for both.
        """
        if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST):
            self._killed.add(domain.UUIDString())
        elif event in _CLEARS_KILLED:
            self._killed.discard(domain.UUIDString())
        self._changed()

    def _drop(self, connection: Any) -> None:
        with self._lock:
            if self._connection is not connection:
                return
            self._connection = None
            self._facts = None
        log.warning("libvirt.lost", uri=self._uri)
        self._changed()


@contextlib.contextmanager
def _as_failed_step() -> Iterator[None]:
    """Turns an error of libvirt into StepFailed."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise StepFailed(str(error.get_error_message())) from error


def _open(uri: str) -> Any:
    connection = libvirt.open(uri)
    connection.setKeepAlive(_PING_INTERVAL_S, _MAX_LOST_PINGS)
    return connection


def _on_own_connection(uri: str, id_: str, verb: Callable[[Any], object]) -> None:
    with _as_failed_step(), contextlib.closing(_open(uri)) as connection:
        verb(connection.lookupByUUIDString(id_))


def _unseen(domain: Domain) -> Domain:
    return replace(domain, unseen="libvirt does not answer about its domain")


def _observe_domain(domain: Any, killed: Set[str]) -> Domain:
    state, reason = domain.state()
    live, inactive = _xml(domain), _xml(domain, libvirt.VIR_DOMAIN_XML_INACTIVE)
    live_mark = definitions.mark_of(live)
    is_shut_down = (state, reason) == (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
    return Domain(
        id=domain.UUIDString(),
        name=domain.name(),
        power=_POWERS.get((state, reason), _POWERS.get((state, None), Power.RUNNING)),
        powered_off=is_shut_down and domain.UUIDString() not in killed,
        persistent=bool(domain.isPersistent()),
        mark=definitions.mark_of(inactive),
        running_fingerprint=live_mark.fingerprint if live_mark else "",
        disks=definitions.disks_of(live) | definitions.disks_of(inactive),
        taps=definitions.taps_of(live) | definitions.taps_of(inactive),
    )


def _resize(domain: Any, disk: str, size: int) -> None:
    target = definitions.disk_target(_xml(domain), disk)
    if not target:
        raise StepFailed(f"it has no disk {disk}")
    domain.blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def _xml(domain: Any, flags: int = 0) -> ElementTree.Element:
    return ElementTree.fromstring(domain.XMLDesc(flags))  # noqa: S314 - libvirt's own


def _resume(domain: Any) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED:
        domain.pMWakeup(0)
        return
    try:
        domain.resume()
    except libvirt.libvirtError as error:
        if _HALTED not in str(error):
            raise
        domain.destroy()  # like a crashed one, it is started again, and that is counted


def _power_off(domain: Any) -> None:
    if domain.isActive():
        domain.destroy()


def _serial(domain: Any) -> str:
    source = _xml(domain).find("devices/serial/source")
    return source.get("path", "") if source is not None and domain.isActive() else ""


def _close(connection: Any) -> None:
    with _as_failed_step():
        connection.unregisterCloseCallback()
        connection.close()


@functools.cache
def _run_event_loop() -> None:
    """Starts libvirt's event loop, once, before the first connection. Its thread is a daemon, since nothing ends it."""

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=run, name="libvirt-events", daemon=True).start()
