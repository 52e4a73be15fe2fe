"""The terminal: what may be printed on it, and that it is left as it was found."""

import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType

import click

STDIN, STDOUT, STDERR = range(3)
_CONTROL_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp"})  # signs that move, colour, hide or turn round


def escaped(text: str) -> str:
    r"""The text with each sign that a terminal would act on written out: `\x1b`, `\u202e`, `\n`."""
    if text.isprintable():
        return text
    from unicodedata import category

    return "".join(
        sign.encode("unicode_escape").decode() if category(sign) in _CONTROL_CATEGORIES else sign for sign in text
    )


def say(text: str) -> None:
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
    say("Ctrl-] leaves.")
    try:
        tty.setraw(STDIN)
        yield
    finally:
        restore()
        say("")
        for number, handler in old.items():
            signal.signal(number, handler)
