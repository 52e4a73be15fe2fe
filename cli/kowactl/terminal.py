"""The terminal and the process in it: escaped output, the restored terminal, and the end by signals."""

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn
from unicodedata import category

import click

from kowa import errors

STDIN, STDOUT, STDERR = range(3)
# Signals that end a process by default. SIGINT is Python's own: KeyboardInterrupt.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHECK_INTERVAL_S = 0.1
_CONTROL_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp"})  # they move the cursor, set colours, hide text or reverse it


class Terminated(BaseException):
    """Raised in the main thread when a signal comes, with its number, so that every `finally` runs."""


def escaped(text: str) -> str:
    r"""The text with control characters for terminals escaped: `\x1b`, `\u202e`, `\n`."""
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if category(char) in _CONTROL_CATEGORIES else char for char in text
    )


def print_message(text: str) -> None:
    """Prints a line on stderr. A closed stderr is ignored: the command goes on, with the same exit code."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def open_closed_standard_files() -> None:
    """Opens closed standard files, so that no connection gets their numbers. Reading from them stays an error."""
    for number in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)  # takes the lowest free number
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False)  # noqa: SIM115


def handle_signals() -> None:
    """Makes signals raise Terminated; a second one ends the program at once. Ignored signals (nohup) stay ignored."""
    handled = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]

    def terminate(number: int, _: FrameType | None) -> NoReturn:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        raise Terminated(number)

    for number in handled:
        signal.signal(number, terminate)


@contextlib.contextmanager
def interruptible(close: Callable[[], None]) -> Iterator[Callable[[BaseException], None]]:
    """Ends a client's calls with BrokenPipeError once nobody reads stdout any more; `close` closes the client.

    Yields a function with which any thread ends them with another exception. They end by Closed, and the exception is
    raised then: a signal handler would raise it anywhere, also where an `except OSError` swallows it.
    """
    reasons: list[BaseException] = []
    done, output = threading.Event(), select.poll()
    output.register(STDOUT, 0)  # errors only: the pipe has no reader, or the terminal is closed

    def interrupt(error: BaseException) -> None:
        reasons.append(error)
        close()

    def watch_output() -> None:
        while not (reasons or done.wait(CHECK_INTERVAL_S)):
            if output.poll(0):
                interrupt(BrokenPipeError())

    watcher = threading.Thread(target=watch_output, daemon=True)
    watcher.start()
    try:
        with contextlib.suppress(errors.Closed):
            yield interrupt
    finally:
        done.set()
        watcher.join()
    if reasons:
        raise reasons[0]


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Passes each key on unchanged, also Ctrl-C. Afterwards the terminal is as before, and unread keys are dropped.

    While the process is stopped (SIGTSTP), the terminal is as before, too.
    """
    if not os.isatty(STDIN):
        yield
        return
    before = termios.tcgetattr(STDIN)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcflush(STDIN, termios.TCIFLUSH)  # keys for the instance must not reach the shell
            termios.tcsetattr(STDIN, termios.TCSANOW, before)  # does not wait for output that nobody reads

    def stop(_: int, __: FrameType | None) -> None:
        restore()
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(_: int, __: FrameType | None) -> None:
        with contextlib.suppress(termios.error):  # a closed terminal sends SIGCONT along with SIGHUP
            tty.setraw(STDIN)

    handlers = {signal.SIGTSTP: stop, signal.SIGCONT: resume}
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
