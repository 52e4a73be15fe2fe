"""The addresses of Kahuna: tried in turn, the last good one first, also after a restart."""

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from kowa.files import write

log = structlog.get_logger()

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_LAST_PORT = 65535


def is_address(text: str) -> bool:
    """Whether a text has the form of an address: `kahuna.example.net:7443`, `10.0.0.1:7443`, `[fd00::1]:7443`."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[2]) <= _LAST_PORT


class Addresses:
    """Chooses the address to dial. One that fails makes way for the next, and is tried again in its turn."""

    def __init__(self, configured: Sequence[str], state: Path, clock: Callable[[], float]) -> None:
        """`state` is the agent's directory; `clock` returns seconds. Addresses of a wrong form are skipped."""
        for address in configured:
            if not is_address(address):
                log.error("address.skipped", address=address, reason="it is not host:port")
        self._all = [address for address in configured if is_address(address)]
        self._file, self._clock = state / "address", clock
        self._not_before: dict[str, float] = {}
        self._told = ""  # by Kahuna, to be dialled next
        with contextlib.suppress(OSError, UnicodeDecodeError):
            good = self._file.read_text().strip()
            if good in self._all:
                self._start_with(good)

    @property
    def current(self) -> str:
        """The address to dial."""
        return self._told or self._all[0]

    def is_good(self) -> None:
        """Notes that Kahuna has answered at the current address. It is stored, unless Kahuna itself named it."""
        self._not_before.clear()
        if self.current not in self._all:
            return
        with contextlib.suppress(OSError):  # a full disk: then it is not the first after a restart
            if not self._file.exists() or self._file.read_text() != self.current:
                write(self._file, self.current.encode(), mode=0o600)

    def next(self, retry_after_s: float = 0.0, told: str = "") -> float:
        """Goes on to the next address, or to the one that Kahuna named. Returns the seconds it asked to wait for that.

        `retry_after_s` is what the current address asked for.
        """
        now = self._clock()
        self._not_before[self.current] = now + retry_after_s
        if not self._told:
            self._all.append(self._all.pop(0))
        self._told = told if is_address(told) else ""
        if not self._told:
            # The one that may be dialled first; of those that may at once, the next in turn.
            self._start_with(min(self._all, key=lambda address: max(self._not_before.get(address, now), now)))
        return max(0.0, self._not_before.get(self.current, now) - now)

    def _start_with(self, address: str) -> None:
        index = self._all.index(address)
        self._all = self._all[index:] + self._all[:index]
