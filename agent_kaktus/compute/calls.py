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

    The subjects of calls bound how many hang: while one is overdue, others on the same subject fail at once.
    """

    def __init__(self) -> None:
        self._overdue: list[tuple[str, Future[Any]]] = []

    async def run(self, subject: str, work: Callable[[], T], limit: float) -> T:
        """What work returns. Raises StepFailed when that takes too long."""
        self._overdue = [(other, call) for other, call in self._overdue if not call.done()]
        if subject in dict(self._overdue):
            raise StepFailed("libvirt has not answered an earlier call yet")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # whoever stops waiting does not cancel it
        threading.Thread(target=_carry_out, args=(work, future), name=f"libvirt {subject}", daemon=True).start()
        try:
            async with asyncio.timeout(limit):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._overdue.append((subject, future))
            raise StepFailed(f"libvirt did not answer within {limit:g} s") from None


def _carry_out(work: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(work())
    except BaseException as why:  # noqa: BLE001 - raised where it is awaited
        future.set_exception(why)
