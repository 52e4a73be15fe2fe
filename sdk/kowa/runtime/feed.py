"""The interface between an agent's worker and Kahuna: desired state, its changes, and reports."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol, TypeAlias

from kowa.fleet.v1 import fleet_pb2

Keys: TypeAlias = AsyncIterator[bytes | fleet_pb2.TerminalSize]
"""A console's input: typed keys, and the sizes of the terminal that shows it."""


class Refused(Exception):
    """A worker's refusal of a slice, a command or a console, with the reason as its message."""


class Feed(Protocol):
    """The worker's view of Kahuna. While Kahuna is unreachable, `desired` is the stored state."""

    def desired(self) -> Mapping[str, fleet_pb2.Object]:
        """The desired state, by id: a whole slice, accepted and durably stored."""

    async def wait_for_change(self, timeout_s: float) -> None:
        """Returns when the desired state has changed since the last call, or after the timeout."""

    def report(self, report: fleet_pb2.Report) -> None:
        """Reports the observed state of one object: the latest counts and is sent again after a reconnect."""


class Worker:
    """An agent's work on its slice. Commands and consoles are only for agents that run instances."""

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Checks a slice before it is stored. Raises Refused when it can't be carried out; changes nothing."""
        raise NotImplementedError

    async def run(self, feed: Feed) -> None:
        """Converges until cancelled."""
        raise NotImplementedError

    async def act(self, command: fleet_pb2.Command) -> None:
        """Carries out a command. Raises Refused with the reason when it can't."""
        raise Refused(f"this agent knows no command {command.WhichOneof('action')}")

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        """Yields an instance's past and new output, at most 64 KiB at once; `keys` are its input.

        Raises Refused when it has no console.
        """
        raise Refused("this agent has no consoles")
        yield b""
