"""Work whose libraries a program needs once, and never again."""

import multiprocessing
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """What work returns, done in a process of its own: what it imports takes no memory here.

    Only while there is one thread. If it raises, its traceback is on standard error, and this process exits with 1.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send(work()))
    child.start()
    sending.close()
    try:
        result: T = receiving.recv()
    except EOFError:
        sys.exit(1)
    finally:
        child.join()
    return result
