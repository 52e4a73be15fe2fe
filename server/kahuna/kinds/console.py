"""Consoles under way: what a machine prints on its way to a viewer, and keys on their way to the machine."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from kahuna.domain.errors import Refusal
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.tasks import first_done

MAX_OUTPUT_BYTES = 256 << 10  # that wait for the viewer; the machine's host waits then
MAX_KEYS_BYTES = 64 << 10  # that wait for the machine, before who types waits
MAX_CHUNK_BYTES = 64 << 10  # of output in one message, and before its host hears that it is shown
MAX_TYPED_BYTES = 4 << 10  # of keys in one message
MAX_UNDONE_MESSAGES = 16  # of keys and sizes, that the host has not carried out yet
ANSWER_TIMEOUT_S = 10  # for a host to answer that a console is wanted, and for a machine to take keys
FLUSH_TIMEOUT_S = 5  # for a machine to take the last keys, once their viewer has left


T = TypeVar("T")
Ask = Callable[[str, str, str], asyncio.Event | None]


class Console:
    """One console: it ends with its viewer's stream, with what its host sends, or with the host's session."""

    def __init__(self, session: str, caller: str, instance: str, host_gone: asyncio.Event) -> None:
        self.session, self.caller, self.instance, self.host_gone = session, caller, instance, host_gone
        self.answered = asyncio.Event()
        self.ended = False
        self.refusal = ""
        self._output, self._keys = bytearray(), bytearray()
        self._taken = 0  # bytes of keys since the beginning
        self._shown = 0  # bytes of output since the host last heard of any
        self._undone = 0  # messages
        self._size: fleet_pb2.TerminalSize | None = None
        self._typing = asyncio.Lock()
        self._moved = asyncio.Event()

    def end(self, refusal: str = "") -> None:
        """Ends it for both sides. Only the first refusal counts."""
        self.refusal = self.refusal or refusal
        self.ended = True
        self.answered.set()
        self._wake()

    async def printed(self) -> AsyncIterator[bytes]:
        """What the machine prints, to the end."""
        while data := await self._until(lambda: self._cut(self._output, MAX_CHUNK_BYTES)):
            self._shown += len(data)
            yield data

    def print(self, data: bytes) -> None:
        """Passes on what the machine has printed. A host that does not wait for the viewer ends it."""
        if len(self._output) + len(data) > MAX_OUTPUT_BYTES:
            self.end("its host sends more than it may; upgrade its agent")
        if not self.ended:
            self._output += data
            self._wake()

    async def type(self, offset: int, data: bytes) -> int:
        """Takes keys, once there is room, and says how many bytes it has taken since the beginning.

        Raises Refusal CONSOLE_GAP when keys before these are missing, BUSY when the machine takes none.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._typing:
                if offset > self._taken:
                    message = f"keys {self._taken} to {offset} are missing; send them from offset {self._taken} on"
                    raise Refusal("CONSOLE_GAP", message, details={"offset": str(self._taken)})
                rest = data[self._taken - offset :]
                await self._until(lambda: len(self._keys) + len(rest) <= MAX_KEYS_BYTES)
                if self.ended:
                    raise _no_console()
                self._keys += rest
                self._taken += len(rest)
                self._wake()
                return self._taken
        except TimeoutError:
            message = f"the machine has read no keys for {ANSWER_TIMEOUT_S} s; send these again from the same offset"
            raise Refusal("BUSY", message) from None

    def resize(self, rows: int, columns: int) -> None:
        """Takes the size of the viewer's terminal; only the latest counts."""
        self._size = fleet_pb2.TerminalSize(rows=rows, columns=columns)
        self._wake()

    async def typed(self) -> AsyncIterator[fleet_pb2.RelayResponse]:
        """What the host shall carry out, no faster than it does; at the end what is left, if it takes that in time."""
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
        """The host has carried out so many more."""
        self._undone = max(0, self._undone - messages)
        self._wake()

    def _next(self) -> fleet_pb2.RelayResponse | None:
        """What the host shall carry out next, if it may have anything now."""
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

    def _cut(self, buffer: bytearray, most: int) -> bytes:
        data = bytes(buffer[:most])
        if data:
            del buffer[:most]
            self._wake()
        return data

    def _wake(self) -> None:
        """Lets everybody look again who waits."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def _until(self, found: Callable[[], T], *, also_ended: bool = False) -> T:
        """What is found once it is anything, or at the end."""
        while not (one := found()) and (also_ended or not self.ended):
            await self._moved.wait()
        return one


class Consoles:
    """All consoles.

    `ask` tells an agent that one is wanted. It answers what is set when that session ends; nothing if there is none.
    """

    def __init__(self) -> None:
        self.ask: Ask = lambda agent, ticket, instance: None
        self._open: dict[str, Console] = {}

    @contextlib.asynccontextmanager
    async def open(self, caller: str, agent: str, instance: str) -> AsyncIterator[Console]:
        """The console of an instance, as long as it is looked at.

        Raises Refusal HOST_OFFLINE when its agent is not there to show it, CONFLICT with why it doesn't.
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
        """The console a host answers for. Raises Refusal NOT_FOUND for one it is not asked for, or not any more."""
        console = self._open.get(ticket)
        if console is None or console.host_gone is not host_gone or host_gone.is_set() or console.answered.is_set():
            raise Refusal("NOT_FOUND", "nobody waits for this console")
        console.answered.set()
        return console

    def of(self, caller: str, instance: str, session: str) -> Console:
        """A caller's own console. Raises Refusal NOT_FOUND for any other, like for what is not there."""
        console = self._open.get(session)
        if console is None or console.ended or (console.caller, console.instance) != (caller, instance):
            raise _no_console()
        return console


def _no_console() -> Refusal:
    return Refusal("NOT_FOUND", "you have no such console, or it has ended; open it again")
