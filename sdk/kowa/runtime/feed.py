"""What an agent's worker sees of Kahuna: what is wanted, when that changes, and where to report what is."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol, TypeAlias

from kowa.fleet.v1 import fleet_pb2

Keys: TypeAlias = AsyncIterator[bytes | fleet_pb2.TerminalSize]
"""What is typed into a console, and how large the terminal is that shows it."""


class Refused(Exception):
    """A worker's reason not to accept a change of its slice; the last good state stays."""


class Feed(Protocol):
    """The worker's side of the stream. Works the same while Kahuna is away: then `desired` is the stored state."""

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        """What is wanted now, by id; whole, accepted and durably stored."""

    async def wait_for_change(self, limit: float) -> None:
        """Returns when what is wanted has changed since the last call, or after `limit` seconds."""

    def report(self, report: fleet_pb2.Report) -> None:
        """Reports what is seen of one object: the latest counts and is sent again after a reconnect."""


class Worker:
    """What an agent does with its slice. One that runs no instances leaves out commands and consoles."""

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Checks a slice before it is stored. Raises Refused when it can't be carried out; touches nothing."""
        raise NotImplementedError

    async def run(self, feed: Feed) -> None:
        """Converges until cancelled."""
        raise NotImplementedError

    async def act(self, command: fleet_pb2.Command) -> None:
        """Does something once. Raises Refused with the reason when it can't."""
        raise Refused(f"this agent knows no command {command.WhichOneof('action')}")

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """What an instance has printed and prints, 64 KiB at once at most; `keys` are typed into it.

        Raises Refused when there is none.
        """
        raise Refused("this agent has no consoles")
        yield b""
