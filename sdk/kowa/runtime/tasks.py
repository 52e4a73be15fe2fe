"""Tasks with an owner: none is lost, and none outlives the one that began it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


def in_thread(work: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Makes a coroutine function of one that blocks: each call runs in a thread."""

    @functools.wraps(work)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    return call


async def first_done(*works: Awaitable[Any]) -> None:
    """Runs works side by side until the first of them ends; then cancels the others and waits for their end.

    Raises what the first has raised. A future that belongs to somebody else is passed in `asyncio.shield`.
    """
    for task in await _race(works):
        task.result()


async def until_first_done(*works: Awaitable[Any]) -> list[Any]:
    """As `first_done`, but returns what each work has returned or raised, in the order given."""
    tasks = [asyncio.ensure_future(work) for work in works]
    await _race(tasks)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def _race(works: Iterable[Awaitable[Any]]) -> set["asyncio.Future[Any]"]:
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(*tasks)
    return done


async def cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancels tasks and waits for their end, whatever they raise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Tasks:
    """Background tasks of one owner, who closes them. What one of them raises is logged, and ends no other."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> "asyncio.Task[Any]":
        """Begins a task. It is named in the log if it fails."""
        task = asyncio.create_task(work, name=name or None)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancels what still runs and waits for its end."""
        await cancel(*self._running)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("task.failed", task=task.get_name(), reason=str(error) or type(error).__name__)
