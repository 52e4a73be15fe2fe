"""Tasks with an owner: no task is lost, and none outlives its owner."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger()


def in_thread(work: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turns a blocking function into a coroutine function: each call runs in a thread of its own.

    A call that hangs, as on storage that does not answer, holds up no other one. The threads are daemons: one that
    hangs can't be ended, and must not keep the program from ending.
    """

    @functools.wraps(work)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # so that a caller that stops waiting does not cancel it

        def run() -> None:
            try:
                future.set_result(work(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised in the caller that awaits it
                future.set_exception(error)

        threading.Thread(target=run, name=getattr(work, "__name__", ""), daemon=True).start()
        return await asyncio.wrap_future(future)

    return call


async def first_done(*awaitables: Awaitable[Any]) -> None:
    """Runs awaitables concurrently until the first of them ends; then cancels the others and waits for their end.

    Raises the first one's exception. Wrap a future that has another owner in `asyncio.shield`.
    """
    for task in await _race(awaitables):
        task.result()


async def until_first_done(*awaitables: Awaitable[Any]) -> list[Any]:
    """Like `first_done`, but returns all results and exceptions, in the order given."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    await _race(tasks)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def _race(awaitables: Iterable[Awaitable[Any]]) -> set["asyncio.Future[Any]"]:
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(each) for each in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(*tasks)
    return done


async def cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Cancels tasks and waits for their end, ignoring their exceptions."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Tasks:
    """Background tasks of one owner, who closes them. An exception in one is logged, and does not end the others."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> "asyncio.Task[Any]":
        """Starts a task. The name is for the log, if the task fails."""
        task = asyncio.create_task(work, name=name or None)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancels the running tasks and waits for their end."""
        await cancel(*self._running)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("task.failed", task=task.get_name(), reason=str(error) or type(error).__name__)
