"""Consoles under way: the user's stream on one side, the agent's on the other, a few messages between them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

from kahuna.domain.errors import Refusal
from kowa.runtime.tasks import first_done

MAX_QUEUED_MESSAGES = 16  # in each direction, before the faster side waits
ANSWER_TIMEOUT_S = 10  # for an agent to answer that a console is wanted

Ask = Callable[[str, str, str], bool]


class Console:
    """One console. None in a queue is its end."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.keys: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        self.output: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        self.answered = asyncio.Event()
        self.ended = asyncio.Event()
        self.refusal = ""

    def end(self, refusal: str = "") -> None:
        """Ends it for both sides."""
        self.refusal = self.refusal or refusal
        self.answered.set()
        self.ended.set()

    async def pass_on(self, queue: asyncio.Queue[bytes | None], data: bytes) -> None:
        """Waits for room, or for the end."""
        await first_done(queue.put(data), self.ended.wait())

    async def take(self, queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        """What comes, until the end."""
        while True:
            if queue.empty() and self.ended.is_set():
                return
            getting = asyncio.ensure_future(queue.get())
            await first_done(getting, self.ended.wait())
            if not getting.done() or getting.cancelled():
                continue
            data = getting.result()
            if data is None:
                return
            yield data


class Consoles:
    """All consoles. `ask` tells an agent that one is wanted, and says whether it is connected."""

    def __init__(self) -> None:
        self.ask: Ask = lambda agent, ticket, instance: False
        self._open: dict[str, Console] = {}

    async def open(self, agent: str, instance: str) -> tuple[str, Console]:
        """The console of an instance. Raises Refusal HOST_OFFLINE when its agent is not there to show it."""
        ticket, console = secrets.token_hex(16), Console(agent)
        self._open[ticket] = console
        try:
            if not agent or not self.ask(agent, ticket, instance):
                raise Refusal(
                    "HOST_OFFLINE", "the machine's host is not connected; its console is there when it is back"
                )
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await console.answered.wait()
        except TimeoutError:
            self.close(ticket)
            raise Refusal(
                "HOST_OFFLINE", f"the machine's host did not answer within {ANSWER_TIMEOUT_S} s; try again"
            ) from None
        except BaseException:
            self.close(ticket)
            raise
        if console.ended.is_set():
            self.close(ticket)
            raise Refusal("CONFLICT", console.refusal or "the machine has no console now")
        return ticket, console

    def attach(self, ticket: str, agent: str) -> Console:
        """The console an agent answers for. Raises Refusal NOT_FOUND for one that is not its own or not wanted now."""
        console = self._open.get(ticket)
        if console is None or console.agent != agent or console.answered.is_set():
            raise Refusal("NOT_FOUND", "nobody waits for this console")
        console.answered.set()
        return console

    def close(self, ticket: str) -> None:
        """Ends a console and forgets it."""
        console = self._open.pop(ticket, None)
        if console is not None:
            console.end()
