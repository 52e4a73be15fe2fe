"""Network namespaces without a name: one lives while somebody holds it open, and so never outlives the agent."""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from agent_kaktus.errors import StepFailed

T = TypeVar("T")

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace."""

    def __init__(self) -> None:
        self.descriptor: int = _in_thread(_unshare)

    def run(self, work: Callable[[], T]) -> T:
        """Does something inside. What it opens there stays there."""

        def enter() -> T:
            _check("setns", _libc.setns(self.descriptor, _NEW_NETWORK))
            return work()

        return _in_thread(enter)

    def close(self) -> None:
        """Closes it: once all sockets in it are closed, too, the kernel removes it with its devices."""
        os.close(self.descriptor)


def _unshare() -> int:
    _check("unshare", _libc.unshare(_NEW_NETWORK))
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _check(call: str, result: int) -> None:
    if result:
        raise StepFailed(f"{call}: {os.strerror(ctypes.get_errno())}")


def _in_thread(work: Callable[[], T]) -> T:
    """In a thread of its own that ends with it, since a thread that has changed its namespace is of no other use."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as why:  # noqa: BLE001 - raised by who waits
            failures.append(why)

    thread = threading.Thread(target=run, name="namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
