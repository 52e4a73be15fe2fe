"""Open consoles: relays the output of an instance to its viewer, and keys to the instance."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from kahuna.domain.errors import Refusal
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.tasks import first_done

MAX_OUTPUT_BYTES = 256 << 10  # not yet read by the viewer; the instance's host must wait then
MAX_KEYS_BYTES = 64 << 10  # not yet read by the instance; more keys wait then
MAX_CHUNK_BYTES = 64 << 10  # of output in one message; after so many the host is told that they were read
MAX_TYPED_BYTES = 4 << 10  # of keys in one message
MAX_UNDONE_MESSAGES = 16  # of keys and sizes that the host has not carried out yet
ANSWER_TIMEOUT_S = 10  # for a host to open a console, and for an instance to read keys
FLUSH_TIMEOUT_S = 5  # for an instance to read the last keys after their viewer has left


T = TypeVar("T")
Ask = Callable[[str, str, str], asyncio.Event | None]
"""Asks an agent, by id, for the console of a ticket and instance. Returns the event set when its session ends."""


class Console:
    """One console. It ends with its viewer's stream, by a message of its host, or with the host's session."""

    def __init__(self, session: str, caller: str, instance: str, host_gone: asyncio.Event) -> None:
        self.session, self.caller, self.instance, self.host_gone = session, caller, instance, host_gone
        self.answered = asyncio.Event()
        self.ended = False
        self.refusal = ""
        self._output, self._keys = bytearray(), bytearray()
        self._accepted = 0  # bytes of keys since the start
        self._shown = 0  # bytes of output that the host has not been told of
        self._undone = 0  # messages that the host has not carried out
        self._size: fleet_pb2.TerminalSize | None = None
        self._typing_lock = asyncio.Lock()
        self._changed = asyncio.Event()

    def end(self, refusal: str = "") -> None:
        """Ends the console for both sides. Only the first refusal counts."""
        self.refusal = self.refusal or refusal
        self.ended = True
        self.answered.set()
        self._wake()

    async def output(self) -> AsyncIterator[bytes]:
        """Yields the output of the instance, until the console ends."""
        while data := await self._until(lambda: self._cut(self._output, MAX_CHUNK_BYTES)):
            self._shown += len(data)
            yield data

    def print(self, data: bytes) -> None:
        """Relays output of the instance. A host that does not wait for the viewer ends the console."""
        if len(data) > MAX_CHUNK_BYTES or len(self._output) + len(data) > MAX_OUTPUT_BYTES:
            self.end("its host sends more than it may; upgrade its agent")
        if not self.ended:
            self._output += data
            self._wake()

    async def type(self, offset: int, data: bytes) -> int:
        """Accepts keys, once they fit, and returns how many bytes it has accepted since the start.

        Raises Refusal CONSOLE_GAP when keys before these are missing, BUSY when the instance reads none.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._typing_lock:
                if offset > self._accepted:
                    text = f"keys {self._accepted} to {offset} are missing; send them from offset {self._accepted} on"
                    raise Refusal("CONSOLE_GAP", text, details={"offset": str(self._accepted)})
                rest = data[self._accepted - offset :]
                await self._until(lambda: len(self._keys) + len(rest) <= MAX_KEYS_BYTES)
                if self.ended:
                    raise _no_console()
                self._keys += rest
                self._accepted += len(rest)
                self._wake()
                return self._accepted
        except TimeoutError:
            message = f"the machine has read no keys for {ANSWER_TIMEOUT_S} s; send these again from the same offset"
            raise Refusal("BUSY", message) from None

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the viewer's terminal; only the latest is sent."""
        self._size = fleet_pb2.TerminalSize(rows=rows, columns=columns)
        self._wake()

    async def responses(self) -> AsyncIterator[fleet_pb2.RelayResponse]:
        """Yields messages for the host, as fast as it carries them out; at the end those left, for FLUSH_TIMEOUT_S."""
        while True:
            message = await self._until(self._next)
            if message is None and self._keys:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_TIMEOUT_S):
                        message = await self._until(self._next, also_ended=True)
            if message is None:
                return
            yield message

    def done(self, messages: int) -> None:
        """Notes that the host has carried out so many more messages."""
        self._undone = max(0, self._undone - messages)
        self._wake()

    def _next(self) -> fleet_pb2.RelayResponse | None:
        """Returns the next message for the host, or None if there is none, or too many are not carried out yet."""
        if self._shown >= MAX_CHUNK_BYTES:
            shown, self._shown = self._shown, 0
            return fleet_pb2.RelayResponse(shown=shown)
        if self._undone >= MAX_UNDONE_MESSAGES or not (self._keys or self._size):
            return None
        self._undone += 1
        if self._size:
            size, self._size = self._size, None
            return fleet_pb2.RelayResponse(size=size)
        return fleet_pb2.RelayResponse(data=self._cut(self._keys, MAX_TYPED_BYTES))

    def _cut(self, buffer: bytearray, size: int) -> bytes:
        data = bytes(buffer[:size])
        if data:
            del buffer[:size]
            self._wake()
        return data

    def _wake(self) -> None:
        """Wakes all that wait in `_until`."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, poll: Callable[[], T], *, also_ended: bool = False) -> T:
        """Returns the first true value of `poll`, or its value when the console ends."""
        while not (value := poll()) and (also_ended or not self.ended):
            await self._changed.wait()
        return value


class Consoles:
    """All open consoles. The fleet service sets `ask`.

    A console is known to its agent by a ticket, which is also the session that its viewer types to.
    """

    def __init__(self) -> None:
        self.ask: Ask = lambda agent, ticket, instance: None
        self._open: dict[str, Console] = {}

    @contextlib.asynccontextmanager
    async def open(self, caller: str, agent: str, instance: str) -> AsyncIterator[Console]:
        """Opens the console of an instance for its viewer.

        Raises Refusal HOST_OFFLINE when its agent is not connected or does not answer, CONFLICT when that refuses.
        """
        session = secrets.token_hex(16)
        host_gone = self.ask(agent, session, instance)
        if host_gone is None:
            raise Refusal("HOST_OFFLINE", "the machine's host is not connected; its console is there when it is back")
        console = self._open[session] = Console(session, caller, instance, host_gone)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await first_done(console.answered.wait(), host_gone.wait())
            if not console.answered.is_set():
                message = f"the machine's host did not answer within {ANSWER_TIMEOUT_S} s, or has gone; try again"
                raise Refusal("HOST_OFFLINE", message)
            yield console
            if console.refusal:
                raise Refusal("CONFLICT", console.refusal)
        finally:
            del self._open[session]
            console.end()

    def attach(self, ticket: str, host_gone: asyncio.Event | None) -> Console:
        """Returns the console that a host has been asked for. Raises Refusal NOT_FOUND for any other ticket."""
        console = self._open.get(ticket)
        if console is None or console.host_gone is not host_gone or host_gone.is_set() or console.answered.is_set():
            raise Refusal("NOT_FOUND", "nobody waits for this console")
        console.answered.set()
        return console

    def find_own(self, caller: str, instance: str, session: str) -> Console:
        """Returns a console that the caller has opened. Raises Refusal NOT_FOUND for any other."""
        console = self._open.get(session)
        if console is None or console.ended or (console.caller, console.instance) != (caller, instance):
            raise _no_console()
        return console


def _no_console() -> Refusal:
    return Refusal("NOT_FOUND", "you have no such console, or it has ended; open it again")
