"""Calls of the store whose caller has left."""

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from kahuna.domain.errors import Refusal
from kahuna.store.database import Store
from kahuna.store.schema import migrate
from kahuna.store.transaction import Transaction


@pytest.mark.parametrize("method", ["plan", "run"])
def test_a_call_that_fails_after_its_caller_has_left_is_not_logged_as_unretrieved(tmp_path: Path, method: str) -> None:
    """A plan always ends in an exception; any other call does when it is refused."""
    store = Store(f"sqlite:///{tmp_path / 'kahuna.db'}")
    migrate(store.engine)
    store.load()
    started, left = threading.Event(), threading.Event()
    unhandled: list[dict[str, Any]] = []

    def work(_: Transaction) -> None:
        started.set()
        assert left.wait(10)
        if method == "run":
            raise Refusal("BUSY", "try again")

    async def leave() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        call = asyncio.create_task(getattr(store, method)(work))
        await loop.run_in_executor(None, started.wait, 10)
        call.cancel()
        await asyncio.wait([call])
        left.set()
        await asyncio.wait(store._pending)  # which retrieves no exception
        gc.collect()

    asyncio.run(leave())
    store.dispose()
    assert unhandled == []
