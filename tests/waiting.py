"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, limit: float = 20, what: str = "") -> T:
    """The first truthy answer of a condition. Raises TimeoutError, naming what was waited for."""
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{what or 'the condition'} did not come about within {limit} s; last: {answer!r}")
        time.sleep(0.02)
