"""Calls that may never return."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kowa.runtime.errors import StepFailed

T = TypeVar("T")


class Calls:
    """Awaits calls up to a timeout. One that was not awaited to its end is overdue until it returns.

    While a call is overdue, others on the same subject fail at once, so that the number of hanging calls is bounded.
    """

    def __init__(self, answerer: str) -> None:
        """`answerer`, such as `libvirt`, is named in failures."""
        self._answerer = answerer
        self._overdue: dict[str, asyncio.Task[Any]] = {}

    def is_overdue(self, subject: str) -> bool:
        """Whether a call on a subject is overdue."""
        return subject in self._overdue

    async def run(self, subject: str, call: Callable[[], Coroutine[Any, Any, T]], timeout_s: float) -> T:
        """Returns the result of a call. Raises StepFailed after the timeout."""
        if self.is_overdue(subject):
            raise StepFailed(f"{self._answerer} has not answered an earlier call yet")
        task = asyncio.create_task(call())
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            if not task.done():
                self._overdue[subject] = task
                task.add_done_callback(lambda ended: self._ended(subject, ended))
        if not task.done():
            raise StepFailed(f"{self._answerer} did not answer within {timeout_s:g} s")
        return task.result()

    def _ended(self, subject: str, task: "asyncio.Task[Any]") -> None:
        del self._overdue[subject]
        if not task.cancelled():
            task.exception()  # nobody awaits it any more
