"""Signals that ask a program to end."""

import asyncio
import signal
from collections.abc import Callable


def on_end(call: Callable[[], object]) -> None:
    """Has the running loop call this at SIGTERM, and at SIGINT unless whoever started this program has it ignored.

    A shell ignores SIGINT for the background jobs of a script, so that Ctrl-C ends what stands in front only.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, call)
