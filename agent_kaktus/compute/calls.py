"""Calls that may never come back: each in a thread of its own, awaited up to a limit."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from agent_kaktus.errors import StepFailed

T = TypeVar("T")


class Calls:
    """The threads are daemons, for one that hangs in libvirt can't be ended, and the agent must end without it.

    What a call is about bounds how many hang: while one is overdue, others about the same fail at once.
    """

    def __init__(self) -> None:
        self._overdue: dict[str, list[Future[Any]]] = {}

    async def make(self, about: str, work: Callable[[], T], limit: float) -> T:
        """What work returns. Raises StepFailed when that takes too long."""
        if self._is_overdue(about):
            raise StepFailed("libvirt has not answered an earlier call yet")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # whoever stops waiting does not cancel it
        threading.Thread(target=_carry_out, args=(work, future), name=f"libvirt {about}", daemon=True).start()
        try:
            async with asyncio.timeout(limit):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._overdue.setdefault(about, []).append(future)
            raise StepFailed(f"libvirt did not answer within {limit:g} s") from None

    def _is_overdue(self, about: str) -> bool:
        left = [future for future in self._overdue.pop(about, ()) if not future.done()]
        if left:
            self._overdue[about] = left
        return bool(left)


def _carry_out(work: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(work())
    except BaseException as why:  # noqa: BLE001 - raised where it is awaited
        future.set_exception(why)
