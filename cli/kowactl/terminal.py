"""The terminal and the process in it: what may be printed, that it is left as it was found, how signals end it."""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn
from unicodedata import category

import click

STDIN, STDOUT, STDERR = range(3)
# Signals that end a process by default. SIGINT is Python's own: KeyboardInterrupt.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHECK_INTERVAL_S = 0.1
_CONTROL_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp"})  # characters that move, colour, hide or turn round


class Terminated(BaseException):
    """A signal came: raised in the main thread, with its number, so that every `finally` runs."""


def escaped(text: str) -> str:
    r"""The text with each character that a terminal would act on written out: `\x1b`, `\u202e`, `\n`."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if category(char) in _CONTROL_CATEGORIES else char for char in text
    )


def print_message(text: str) -> None:
    """Prints a line on stderr. That nobody reads it changes nothing: neither what is done nor the exit code."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def open_closed_standard_files() -> None:
    """Takes the numbers of closed standard files, lest a connection gets one. To read from them stays an error."""
    for number in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)  # the lowest number that is free
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115 - as long as we live
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False)  # noqa: SIM115


def handle_signals() -> None:
    """Lets signals end the program by an exception; a second one ends it at once. What is ignored (nohup) stays so."""
    handled = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def terminate(number: int, _: FrameType | None) -> NoReturn:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        raise Terminated(number)

    for number in handled:
        signal.signal(number, terminate)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[BaseException], None]]:
    """For the main thread: whatever waits inside ends with BrokenPipeError when nobody reads stdout any more.

    Yields what lets any thread end it with another exception.
    """
    errors: list[BaseException] = []
    output = select.poll()
    if not os.isatty(STDOUT):  # a terminal's end is a SIGHUP
        output.register(STDOUT, 0)  # errors only: the reader has gone

    def check(_: int, __: FrameType | None) -> None:
        if not errors and output.poll(0):
            errors.append(BrokenPipeError())
        if errors:
            raise errors[0]
        signal.setitimer(signal.ITIMER_REAL, CHECK_INTERVAL_S)

    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, CHECK_INTERVAL_S)
    try:
        yield errors.append
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # first: Python warns of a signal whose handler has gone
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Each key goes through as it is, also Ctrl-C. Whatever ends this, the terminal is as before, and no key left.

    When the process is stopped (SIGTSTP) the terminal is given back until it goes on.
    """
    if not os.isatty(STDIN):
        yield
        return
    before = termios.tcgetattr(STDIN)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcflush(STDIN, termios.TCIFLUSH)  # keys meant for the machine are not the shell's
            termios.tcsetattr(STDIN, termios.TCSANOW, before)  # does not wait for output that nobody takes

    def stop(_: int, __: FrameType | None) -> None:
        restore()
        os.kill(os.getpid(), signal.SIGSTOP)

    def go_on(_: int, __: FrameType | None) -> None:
        with contextlib.suppress(termios.error):  # a SIGCONT comes with the SIGHUP of a terminal that is gone
            tty.setraw(STDIN)

    handlers = {signal.SIGTSTP: stop, signal.SIGCONT: go_on}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    print_message("Ctrl-] leaves.")
    try:
        tty.setraw(STDIN)
        yield
    finally:
        restore()
        print_message("")
        for number, handler in old.items():
            signal.signal(number, handler)
