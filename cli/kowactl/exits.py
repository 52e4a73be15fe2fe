"""Exits by a signal, or when nobody reads the output any more: by an exception, so that clean-up runs."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from kowactl.terminal import STDOUT

# Signals that end a process by default. SIGINT is Python's own: KeyboardInterrupt.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminated(BaseException):
    """A signal came: raised in the main thread, so that every `finally` runs."""

    def __init__(self, number: int) -> None:
        self.number = number


class OutputClosed(Exception):
    """Nobody reads what is printed any more. click would end with 1 on the OSError that says so."""


def handle_signals() -> None:
    """Lets signals end the program by an exception; a second one ends it at once. What is ignored (nohup) stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _terminate)


def exit_by_signal(number: int) -> NoReturn:
    """Ends as the signal would have: whoever waits for this process sees it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)


@contextlib.contextmanager
def output_closed_raised() -> Iterator[None]:
    """Raises OutputClosed for the error of a pipe that is closed."""
    try:
        yield
    except BrokenPipeError:
        raise OutputClosed from None


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[BaseException], None]]:
    """For the main thread: whatever waits inside ends with OutputClosed when nobody reads stdout any more.

    Yields what lets any thread end it with another exception.
    """
    raised: list[BaseException] = []

    def interrupt(error: BaseException) -> None:
        raised.append(error)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def on_signal(_: int, __: FrameType | None) -> None:
        if raised:
            raise raised.pop()

    done, end = os.pipe()
    watching = threading.Thread(target=_watch_output, args=(done, interrupt), daemon=True)
    signal.signal(signal.SIGUSR1, on_signal)
    try:
        watching.start()
        yield interrupt
    finally:
        os.close(end)
        watching.join()
        os.close(done)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _watch_output(done: int, interrupt: Callable[[BaseException], None]) -> None:
    """Until the other end of `done` is closed."""
    poll = select.poll()
    poll.register(done, 0)
    if not os.isatty(STDOUT):  # a terminal's end is a SIGHUP
        poll.register(STDOUT, 0)  # errors only: the reader has gone
    if any(number == STDOUT for number, _ in poll.poll()):
        interrupt(OutputClosed())


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    for each in SIGNALS:
        if signal.getsignal(each) == _terminate:
            signal.signal(each, signal.SIG_DFL)
    raise Terminated(number)
